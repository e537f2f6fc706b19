#include "tools/plot/canvas.h"

#include <cairo/cairo-ft.h>

#include <cmath>
#include <numbers>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace trimtab {
namespace {

// Named by file and not looked up by name: without fontconfig's set-up a name gives empty boxes, or another font.
constexpr char kRegular[] = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";
constexpr char kBold[] = "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf";
constexpr double kCapHeight = 0.73;  // of the font's size

// What cairo needs for as long as it keeps a font; it may keep one beyond the last drawing.
struct OpenFont {
  FT_Library library = nullptr;
  FT_Face face = nullptr;
  ~OpenFont() {
    if (face != nullptr) FT_Done_Face(face);
    if (library != nullptr) FT_Done_FreeType(library);
  }
};

cairo_status_t Append(void* bytes, const unsigned char* data, unsigned int length) {
  static_cast<std::string*>(bytes)->append(reinterpret_cast<const char*>(data), length);
  return CAIRO_STATUS_SUCCESS;
}

}  // namespace

absl::StatusOr<Canvas::FontFace> Canvas::LoadFont(const std::string& path) {
  static const cairo_user_data_key_t kKey = {};
  auto font = std::make_unique<OpenFont>();
  if (FT_Init_FreeType(&font->library) != 0 || FT_New_Face(font->library, path.c_str(), 0, &font->face) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the font ", path, " cannot be read; install the package fonts-dejavu-core"));
  }
  FontFace face(cairo_ft_font_face_create_for_ft_face(font->face, 0));
  const auto destroy = [](void* open) { delete static_cast<OpenFont*>(open); };
  if (cairo_font_face_set_user_data(face.get(), &kKey, font.get(), destroy) != CAIRO_STATUS_SUCCESS) {
    return absl::ResourceExhaustedError("no memory for a font");
  }
  font.release();
  return face;
}

absl::StatusOr<Canvas> Canvas::Create(int width, int height) {
  TRIMTAB_ASSIGN_OR_RETURN(FontFace regular, LoadFont(kRegular));
  TRIMTAB_ASSIGN_OR_RETURN(FontFace bold, LoadFont(kBold));
  Surface surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height));
  Context context(cairo_create(surface.get()));
  if (cairo_status(context.get()) != CAIRO_STATUS_SUCCESS) {
    return absl::ResourceExhaustedError(cairo_status_to_string(cairo_status(context.get())));
  }
  return Canvas(std::move(surface), std::move(context), std::move(regular), std::move(bold));
}

Canvas::Canvas(Surface surface, Context context, FontFace regular, FontFace bold)
    : surface_(std::move(surface)), context_(std::move(context)), regular_(std::move(regular)), bold_(std::move(bold)) {
  cairo_font_options_t* options = cairo_font_options_create();
  cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
  cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_SLIGHT);
  cairo_set_font_options(context_.get(), options);
  cairo_font_options_destroy(options);
  cairo_set_line_join(context_.get(), CAIRO_LINE_JOIN_ROUND);
  SetColor({1, 1, 1});
  cairo_paint(context_.get());
}

void Canvas::SetColor(const Color& color) {
  cairo_set_source_rgba(context_.get(), color.red, color.green, color.blue, color.alpha);
}

void Canvas::Select(const TextStyle& style) {
  cairo_set_font_face(context_.get(), style.bold ? bold_.get() : regular_.get());
  cairo_set_font_size(context_.get(), style.size);
}

double Canvas::TextWidth(const std::string& text, const TextStyle& style) {
  Select(style);
  cairo_text_extents_t extents;
  cairo_text_extents(context_.get(), text.c_str(), &extents);
  return extents.x_advance;
}

void Canvas::Text(const std::string& text, Point at, const TextStyle& style) {
  if (text.empty()) return;
  const double width = TextWidth(text, style);
  const double share = style.align == Align::kStart ? 0 : style.align == Align::kCenter ? 0.5 : 1;
  SetColor(style.color);
  cairo_save(context_.get());
  cairo_translate(context_.get(), at.x, at.y);
  if (style.upward) cairo_rotate(context_.get(), -std::numbers::pi / 2);
  cairo_move_to(context_.get(), -share * width, style.size * kCapHeight / 2);
  cairo_show_text(context_.get(), text.c_str());
  cairo_restore(context_.get());
}

void Canvas::Trace(const std::vector<Point>& points) {
  cairo_new_path(context_.get());
  for (const Point& point : points) cairo_line_to(context_.get(), point.x, point.y);
}

void Canvas::Line(const std::vector<Point>& points, const Color& color, double width, bool dashed) {
  constexpr double kDashes[] = {5, 4};
  Trace(points);
  SetColor(color);
  cairo_set_line_width(context_.get(), width);
  cairo_set_dash(context_.get(), kDashes, dashed ? 2 : 0, 0);
  cairo_stroke(context_.get());
  cairo_set_dash(context_.get(), nullptr, 0, 0);
}

void Canvas::Fill(const std::vector<Point>& points, const Color& color) {
  Trace(points);
  SetColor(color);
  cairo_fill(context_.get());
}

void Canvas::FillBox(const Box& box, const Color& color) {
  Fill({{box.left, box.top}, {box.right, box.top}, {box.right, box.bottom}, {box.left, box.bottom}}, color);
}

void Canvas::Outline(const Box& box, const Color& color, double width) {
  Line(
      {{box.left, box.top}, {box.right, box.top}, {box.right, box.bottom}, {box.left, box.bottom}, {box.left, box.top}},
      color, width);
}

void Canvas::Marker(int shape, Point at, double r, const Color& color) {
  const double x = at.x, y = at.y;
  switch (shape % 5) {
    case 0:
      cairo_new_path(context_.get());
      cairo_arc(context_.get(), x, y, r, 0, 2 * std::numbers::pi);
      SetColor(color);
      cairo_fill(context_.get());
      return;
    case 1:
      return FillBox({x - 0.9 * r, y - 0.9 * r, x + 0.9 * r, y + 0.9 * r}, color);
    case 2:
      return Fill({{x, y - 1.2 * r}, {x + 1.1 * r, y + 0.8 * r}, {x - 1.1 * r, y + 0.8 * r}}, color);
    case 3:
      return Fill({{x, y - 1.3 * r}, {x + 1.3 * r, y}, {x, y + 1.3 * r}, {x - 1.3 * r, y}}, color);
    default:
      return Fill({{x, y + 1.2 * r}, {x + 1.1 * r, y - 0.8 * r}, {x - 1.1 * r, y - 0.8 * r}}, color);
  }
}

void Canvas::Clip(const Box& box) {
  cairo_save(context_.get());
  cairo_rectangle(context_.get(), box.left, box.top, box.width(), box.height());
  cairo_clip(context_.get());
}

void Canvas::Unclip() { cairo_restore(context_.get()); }

absl::StatusOr<std::string> Canvas::EncodePng() {
  if (const cairo_status_t status = cairo_status(context_.get()); status != CAIRO_STATUS_SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat("the picture cannot be drawn: ", cairo_status_to_string(status)));
  }
  cairo_surface_flush(surface_.get());
  std::string png;
  const cairo_status_t status = cairo_surface_write_to_png_stream(surface_.get(), Append, &png);
  if (status != CAIRO_STATUS_SUCCESS) return absl::InternalError(cairo_status_to_string(status));
  return png;
}

}  // namespace trimtab
