#include "kernels/common/weight_format.h"

#include <cstring>
#include <random>
#include <string>

#include "kernels/common/error.h"

namespace kvfathom::kernels {
namespace {

std::uint8_t byte_at(const std::byte* block, int index) {
  return std::to_integer<std::uint8_t>(block[index]);
}
std::uint16_t u16_at(const std::byte* block, int index) {
  return static_cast<std::uint16_t>(byte_at(block, index) | byte_at(block, index + 1) << 8);
}
double f16_at(const std::byte* block, int index) {
  return to_f32(F16{u16_at(block, index)});
}
int low_nibble(std::uint8_t byte) {
  return byte & 15;
}
int high_nibble(std::uint8_t byte) {
  return byte >> 4;
}

void decode_q8_0(const std::byte* block, double* values) {
  for (int i = 0; i < 32; ++i) {
    values[i] = f16_at(block, 0) * static_cast<std::int8_t>(byte_at(block, 2 + i));
  }
}

void decode_q4_0(const std::byte* block, double* values) {
  for (int i = 0; i < 16; ++i) {
    const std::uint8_t byte = byte_at(block, 2 + i);
    values[i] = f16_at(block, 0) * (low_nibble(byte) - 8);
    values[i + 16] = f16_at(block, 0) * (high_nibble(byte) - 8);
  }
}

/// The scale and minimum of sub-block j: four in whole bytes, and four whose upper two bits are
/// the upper bits of the first four (ggml-quants.c, get_scale_min_k4).
void scale_and_min(const std::byte* scales, int j, int& scale, int& min) {
  if (j < 4) {
    scale = byte_at(scales, j) & 63;
    min = byte_at(scales, j + 4) & 63;
  } else {
    scale = low_nibble(byte_at(scales, j + 4)) | (byte_at(scales, j - 4) >> 6) << 4;
    min = high_nibble(byte_at(scales, j + 4)) | (byte_at(scales, j) >> 6) << 4;
  }
}

void decode_q4_k(const std::byte* block, double* values) {
  for (int sub = 0; sub < 8; ++sub) {
    int scale = 0;
    int min = 0;
    scale_and_min(block + 4, sub, scale, min);
    for (int i = 0; i < 32; ++i) {
      const std::uint8_t byte = byte_at(block, 16 + sub / 2 * 32 + i);
      const int nibble = sub % 2 == 0 ? low_nibble(byte) : high_nibble(byte);
      values[32 * sub + i] = f16_at(block, 0) * scale * nibble - f16_at(block, 2) * min;
    }
  }
}

void put_u16(std::byte* block, int index, std::uint16_t value) {
  std::memcpy(block + index, &value, sizeof(value));
}

}  // namespace

std::string_view name(WeightFormat format) {
  switch (format) {
    case WeightFormat::f16:
      return "f16";
    case WeightFormat::bf16:
      return "bf16";
    case WeightFormat::q8_0:
      return "q8_0";
    case WeightFormat::q4_0:
      return "q4_0";
    case WeightFormat::q4_k:
      return "q4_K";
  }
  return "?";
}

void require_whole_blocks(const WeightMatrix& weights, std::string_view what) {
  const int elements = block_of(weights.format).elements;
  if (weights.n <= 0 || weights.k <= 0 || weights.k % elements != 0) {
    throw UnsupportedShape(std::string(what) + ": [" + std::to_string(weights.n) + ", " +
                           std::to_string(weights.k) + "] holds no whole blocks of " +
                           std::to_string(elements) + " (" + std::string(name(weights.format)) +
                           ")");
  }
}

std::vector<double> decode_weights(WeightFormat format, std::int64_t k, const std::byte* row) {
  std::vector<double> values(static_cast<std::size_t>(k));
  const WeightBlock block = block_of(format);
  for (std::int64_t i = 0; i < k / block.elements; ++i) {
    const std::byte* from = row + i * block.bytes;
    double* to = values.data() + i * block.elements;
    switch (format) {
      case WeightFormat::f16:
        *to = to_f32(F16{u16_at(from, 0)});
        break;
      case WeightFormat::bf16:
        *to = to_f32(Bf16{u16_at(from, 0)});
        break;
      case WeightFormat::q8_0:
        decode_q8_0(from, to);
        break;
      case WeightFormat::q4_0:
        decode_q4_0(from, to);
        break;
      case WeightFormat::q4_k:
        decode_q4_k(from, to);
        break;
    }
  }
  return values;
}

std::vector<std::byte> random_weights(
    WeightFormat format, std::int64_t n, std::int64_t k, float deviation, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal(0.0F, deviation);
  std::uniform_real_distribution<float> around_one(0.5F, 1.5F);
  const WeightBlock block = block_of(format);
  std::vector<std::byte> weights(static_cast<std::size_t>(n * weight_row_bytes(format, k)));
  // Random fields make elements of about this many times their block's scale.
  const float steps = format == WeightFormat::q8_0   ? 74.0F
                      : format == WeightFormat::q4_0 ? 4.6F
                                                     : 265.0F;
  for (std::size_t at = 0; at < weights.size(); at += static_cast<std::size_t>(block.bytes)) {
    std::byte* to = weights.data() + at;
    if (!is_quantised(format)) {
      put_u16(to, 0, activation_of_f32(format, normal(engine)));
      continue;
    }
    for (int i = 0; i < block.bytes; ++i) {
      to[i] = static_cast<std::byte>(engine() >> 32 & 0xffU);
    }
    put_u16(to, 0, to_f16(deviation / steps * around_one(engine)).bits);
    if (format == WeightFormat::q4_k) {  // a minimum of half the nibbles' range: values of mean 0
      put_u16(to, 2, to_f16(7.5F * deviation / steps * around_one(engine)).bits);
    }
  }
  return weights;
}

}  // namespace kvfathom::kernels
