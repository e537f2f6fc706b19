#include "tools/plot/render.h"

#include <cairo/cairo.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <utility>

namespace trimtab {
namespace {

// A decoded PNG file.
class Image {
 public:
  explicit Image(std::string png) : rest_(std::move(png)) {
    surface_ = cairo_image_surface_create_from_png_stream(Read, this);
  }
  ~Image() { cairo_surface_destroy(surface_); }
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  bool ok() const { return cairo_surface_status(surface_) == CAIRO_STATUS_SUCCESS; }
  int width() const { return cairo_image_surface_get_width(surface_); }
  int height() const { return cairo_image_surface_get_height(surface_); }
  uint32_t At(int x, int y) const {  // 0xRRGGBB
    const unsigned char* row = cairo_image_surface_get_data(surface_) + y * cairo_image_surface_get_stride(surface_);
    uint32_t pixel;
    std::memcpy(&pixel, row + 4 * x, sizeof(pixel));
    return pixel & 0xFFFFFF;
  }
  // The stretch of pixels of this colour, about.
  struct Extent {
    int count = 0, left = 1 << 20, top = 1 << 20, right = -1, bottom = -1;
  };
  Extent Find(uint32_t color) const {
    Extent extent;
    for (int y = 0; y < height(); ++y) {
      for (int x = 0; x < width(); ++x) {
        if (!Near(At(x, y), color)) continue;
        ++extent.count;
        extent.left = std::min(extent.left, x);
        extent.right = std::max(extent.right, x);
        extent.top = std::min(extent.top, y);
        extent.bottom = std::max(extent.bottom, y);
      }
    }
    return extent;
  }

 private:
  static bool Near(uint32_t a, uint32_t b) {
    for (int shift : {0, 8, 16}) {
      if (std::abs(static_cast<int>(a >> shift & 255) - static_cast<int>(b >> shift & 255)) > 12) return false;
    }
    return true;
  }
  static cairo_status_t Read(void* self, unsigned char* data, unsigned int length) {
    std::string& rest = static_cast<Image*>(self)->rest_;
    if (rest.size() < length) return CAIRO_STATUS_READ_ERROR;
    std::memcpy(data, rest.data(), length);
    rest.erase(0, length);
    return CAIRO_STATUS_SUCCESS;
  }
  std::string rest_;
  cairo_surface_t* surface_ = nullptr;
};

constexpr uint32_t kFirst = 0x0072B2, kSecond = 0xD55E00;  // of the palette

Picture Lines() {
  LinePanel panel{.title = "Effect", .x = {.title = "strength"}, .left = {.title = "gain"}};
  panel.series.push_back({.name = "gain", .x = {0, 1, 2}, .y = {0, 1, 2}, .low = {-1, 0, 1}, .high = {1, 2, 3}});
  return {.title = "A picture", .width = 640, .height = 400, .panels = {panel}};
}

Picture Bars() {
  BarPanel panel{.value = {.title = "gain"}, .categories = {"first", "second"}};
  panel.series.push_back({.name = "", .values = {2, -1}, .low = {1, -1.5}, .high = {3, -0.5}});
  return {.width = 640, .height = 400, .panels = {panel}};
}

TEST(RenderTest, APngFileOfThePicturesSize) {
  const absl::StatusOr<std::string> png = RenderPng(Lines());
  ASSERT_TRUE(png.ok()) << png.status();
  EXPECT_EQ(png->substr(0, 8), "\x89PNG\r\n\x1a\n");
  const Image image(*png);
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image.width(), 640);
  EXPECT_EQ(image.height(), 400);
  EXPECT_LT(png->size(), 100'000u);
}

TEST(RenderTest, TheSamePictureHasTheSameBytes) { EXPECT_EQ(*RenderPng(Lines()), *RenderPng(Lines())); }

TEST(RenderTest, ARisingLineRises) {
  Picture picture = Lines();
  std::get<LinePanel>(picture.panels[0]).series[0].name.clear();  // no legend: all ink is the line's
  const Image image(*RenderPng(picture));
  ASSERT_TRUE(image.ok());
  const Image::Extent line = image.Find(kFirst);
  ASSERT_GT(line.count, 300);
  // Its left end is low, its right end high: look at the outer tenths.
  for (int y = line.top; y <= line.bottom; ++y) {
    for (int x = line.left; x < line.left + (line.right - line.left) / 10; ++x) {
      if (image.At(x, y) == kFirst) {
        EXPECT_GT(y, (line.top + line.bottom) / 2);
      }
    }
    for (int x = line.right; x > line.right - (line.right - line.left) / 10; --x) {
      if (image.At(x, y) == kFirst) {
        EXPECT_LT(y, (line.top + line.bottom) / 2);
      }
    }
  }
  EXPECT_GT(line.top, 40);  // the interval's end is above the last point
}

TEST(RenderTest, TheBandIsFaintAndErrorBarsAreNot) {
  Picture picture = Lines();
  const int with_band = Image(*RenderPng(picture)).Find(kFirst).count;
  std::get<LinePanel>(picture.panels[0]).series[0].interval = Series::Interval::kErrorBars;
  EXPECT_GT(Image(*RenderPng(picture)).Find(kFirst).count, with_band + 50);
}

TEST(RenderTest, TwoAxesHaveTheirOwnScales) {
  Picture picture = Lines();
  auto& panel = std::get<LinePanel>(picture.panels[0]);
  panel.series[0].name.clear();
  panel.series.push_back({.name = "", .x = {0, 1, 2}, .y = {0, 1e4, 2e4}, .right_axis = true});
  const Image image(*RenderPng(picture));
  const Image::Extent first = image.Find(kFirst), second = image.Find(kSecond);
  EXPECT_GT(first.bottom - first.top, 100);
  EXPECT_GT(second.bottom - second.top, 200);
}

TEST(RenderTest, BarsAreAsLongAsTheirValues) {
  const Image image(*RenderPng(Bars()));
  ASSERT_TRUE(image.ok());
  const Image::Extent bars = image.Find(kFirst);
  // From -1 to 2: the upper one is twice as long as the lower one, which goes the other way.
  int upper = 0, lower = 0;
  for (int x = bars.left; x <= bars.right; ++x) {
    upper += image.At(x, bars.top + 10) == kFirst ? 1 : 0;
    lower += image.At(x, bars.bottom - 10) == kFirst ? 1 : 0;
  }
  ASSERT_GT(lower, 20);
  EXPECT_NEAR(static_cast<double>(upper) / lower, 2, 0.05);
  EXPECT_EQ(image.At(bars.right - 5, bars.top + 10), kFirst);
  EXPECT_EQ(image.At(bars.left + 5, bars.bottom - 10), kFirst);
  EXPECT_NE(image.At(bars.left + 5, bars.top + 10), kFirst);
}

TEST(RenderTest, PanelsStandSideBySide) {
  Picture picture = Bars();
  picture.panels.push_back(picture.panels[0]);
  picture.columns = 2;
  const Image image(*RenderPng(picture));
  int left = 0, right = 0;
  for (int y = 0; y < image.height(); ++y) {
    for (int x = 0; x < image.width(); ++x) {
      if (image.At(x, y) == kFirst) ++(x < image.width() / 2 ? left : right);
    }
  }
  EXPECT_GT(left, 500);
  EXPECT_NEAR(left, right, 0.05 * left);
}

void ExpectRefused(const Picture& picture, const std::string& part) {
  const absl::StatusOr<std::string> png = RenderPng(picture);
  EXPECT_EQ(png.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(png.status().message().find(part), absl::string_view::npos) << png.status();
}

TEST(RenderTest, SaysWhatCannotBeDrawn) {
  ExpectRefused({}, "must have a panel");
  const auto change_line = [](auto change) {
    Picture picture = Lines();
    change(picture, std::get<LinePanel>(picture.panels[0]));
    return picture;
  };
  ExpectRefused(change_line([](Picture& p, LinePanel&) { p.width = 0; }), "width");
  ExpectRefused(change_line([](Picture& p, LinePanel&) { p.columns = 0; }), "column");
  ExpectRefused(change_line([](Picture&, LinePanel& l) { l.series.clear(); }), "panels[0] has no series");
  ExpectRefused(change_line([](Picture&, LinePanel& l) { l.series[0].y[1] = std::nan(""); }), "not finite");
  ExpectRefused(
      change_line([](Picture&, LinePanel& l) { l.series[0].high[1] = std::numeric_limits<double>::infinity(); }),
      "not finite");
  ExpectRefused(change_line([](Picture&, LinePanel& l) { l.series[0] = {}; }), "is empty");
  ExpectRefused(change_line([](Picture&, LinePanel& l) { l.series[0].x.pop_back(); }), "as many x as y");
  ExpectRefused(change_line([](Picture&, LinePanel& l) { l.series[0].low.pop_back(); }), "interval for all");
  ExpectRefused(change_line([](Picture&, LinePanel& l) { std::swap(l.series[0].low, l.series[0].high); }),
                "ends before it begins");
  ExpectRefused(change_line([](Picture&, LinePanel& l) { l.x.logarithmic = true; }), "logarithmic");
  ExpectRefused(change_line([](Picture&, LinePanel& l) {
                  l.left.low = 1;
                  l.left.high = 1;
                }),
                "must end above");
  ExpectRefused(change_line([](Picture&, LinePanel& l) { l.title = "\xFF"; }), "UTF-8");
  Picture bars = Bars();
  std::get<BarPanel>(bars.panels[0]).categories.pop_back();
  ExpectRefused(bars, "one value for each category");
  bars = Bars();
  for (int i = 0; i < 20; ++i) bars.panels.push_back(bars.panels[0]);
  ExpectRefused(bars, "too small");
}

TEST(RenderTest, WritesAFileOrNothing) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "render_test";
  std::filesystem::create_directories(folder);
  const std::string path = folder / "picture.png";
  ASSERT_TRUE(WritePng(Bars(), path).ok());
  std::ifstream file(path, std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), *RenderPng(Bars()));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  EXPECT_EQ(WritePng(Bars(), folder / "none" / "picture.png").code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(WritePng({}, folder / "bad.png").ok());
  EXPECT_FALSE(std::filesystem::exists(folder / "bad.png"));
}

}  // namespace
}  // namespace trimtab
