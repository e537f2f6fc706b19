// The one function of ggml that llama.cpp's Jinja engine needs: what its JSON library does when an assertion fails.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "ggml.h"

extern "C" void ggml_abort(const char* file, int line, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::fprintf(stderr, "%s:%d: ", file, line);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
  std::abort();
}
