/* What wasi-libc needs from the compiler's library, which Debian packages apart from clang. A library that is linked takes
 * precedence. */
#include <stdint.h>

/* Returns the product of two 128-bit numbers. */
__attribute__((weak)) __int128 __multi3(__int128 a, __int128 b) {
  uint64_t a_low = (uint64_t)a, a_high = (uint64_t)(a >> 64), b_low = (uint64_t)b, b_high = (uint64_t)(b >> 64);
  uint64_t a0 = a_low & 0xffffffff, a1 = a_low >> 32, b0 = b_low & 0xffffffff, b1 = b_low >> 32;
  uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32), other = a0 * b1 + (middle & 0xffffffff);
  uint64_t high = a1 * b1 + (middle >> 32) + (other >> 32) + a_low * b_high + a_high * b_low;
  return (__int128)((unsigned __int128)high << 64 | (other << 32 | (low & 0xffffffff)));
}
