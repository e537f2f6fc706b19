// A white sheet to draw on with cairo. One thread.
#ifndef TRIMTAB_TOOLS_PLOT_CANVAS_H_
#define TRIMTAB_TOOLS_PLOT_CANVAS_H_

#include <cairo/cairo.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace trimtab {

struct Color {
  double red = 0, green = 0, blue = 0, alpha = 1;
};

struct Point {
  double x = 0, y = 0;
};

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
  double width() const { return right - left; }
  double height() const { return bottom - top; }
};

enum class Align { kStart, kCenter, kEnd };

struct TextStyle {
  double size = 12;
  bool bold = false;
  Align align = Align::kStart;
  bool upward = false;  // turned left by a quarter
  Color color = {0.13, 0.13, 0.13};
};

class Canvas {
 public:
  // FAILED_PRECONDITION when the font's files cannot be read; RESOURCE_EXHAUSTED without memory for the sheet.
  static absl::StatusOr<Canvas> Create(int width, int height);

  // `at`: start, middle or end of the text, halfway up its letters.
  void Text(const std::string& text, Point at, const TextStyle& style);
  double TextWidth(const std::string& text, const TextStyle& style);
  void Line(const std::vector<Point>& points, const Color& color, double width, bool dashed = false);
  void Fill(const std::vector<Point>& points, const Color& color);
  void FillBox(const Box& box, const Color& color);
  void Outline(const Box& box, const Color& color, double width);
  // Shapes 0 to 4, then again: circle, square, triangle, diamond, triangle downwards.
  void Marker(int shape, Point at, double radius, const Color& color);
  // What is drawn until Unclip stays inside `box`.
  void Clip(const Box& box);
  void Unclip();

  // The bytes of a PNG file. INVALID_ARGUMENT for a text that is not UTF-8.
  absl::StatusOr<std::string> EncodePng();

 private:
  template <auto Destroy>
  struct Destroyer {
    template <typename T>
    void operator()(T* object) const {
      Destroy(object);
    }
  };
  using Surface = std::unique_ptr<cairo_surface_t, Destroyer<cairo_surface_destroy>>;
  using Context = std::unique_ptr<cairo_t, Destroyer<cairo_destroy>>;
  using FontFace = std::unique_ptr<cairo_font_face_t, Destroyer<cairo_font_face_destroy>>;

  Canvas(Surface surface, Context context, FontFace regular, FontFace bold);
  static absl::StatusOr<FontFace> LoadFont(const std::string& path);
  void Select(const TextStyle& style);
  void Trace(const std::vector<Point>& points);
  void SetColor(const Color& color);

  Surface surface_;
  Context context_;
  FontFace regular_, bold_;
};

}  // namespace trimtab

#endif  // TRIMTAB_TOOLS_PLOT_CANVAS_H_
