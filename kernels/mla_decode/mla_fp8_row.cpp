#include "kernels/mla_decode/mla_fp8_row.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "kernels/common/error.h"
#include "kernels/common/number_formats.h"

namespace kvfathom::kernels {

std::vector<std::byte> encode_mla_fp8_row(std::span<const float> row) {
  if (row.size() != kMlaFp8Latent + kMlaFp8Rope) {
    throw UnsupportedShape("an FP8 latent row of " + std::to_string(row.size()) +
                           " elements; the layout is for 576");
  }
  std::vector<std::byte> out(kMlaFp8RowBytes);
  for (std::size_t block = 0; block < kMlaFp8Scales; ++block) {
    const auto values = row.subspan(block * kMlaFp8ScaleBlock, kMlaFp8ScaleBlock);
    float largest = 0.0F;
    for (const float x : values) {
      largest = std::max(largest, std::fabs(x));
    }
    const float scale = largest > 0.0F ? largest / kLargestFp8E4m3 : 1.0F;
    std::memcpy(out.data() + kMlaFp8ScaleOffset + block * sizeof scale, &scale, sizeof scale);
    for (std::size_t i = 0; i < values.size(); ++i) {
      out[block * kMlaFp8ScaleBlock + i] =
          static_cast<std::byte>(to_fp8_e4m3(values[i] / scale).bits);
    }
  }
  for (std::size_t i = 0; i < kMlaFp8Rope; ++i) {
    const Bf16 value = to_bf16(row[kMlaFp8Latent + i]);
    std::memcpy(out.data() + kMlaFp8RopeOffset + i * sizeof value, &value, sizeof value);
  }
  return out;
}

std::vector<double> decode_mla_fp8_row(const std::byte* row) {
  std::vector<double> values(kMlaFp8Latent + kMlaFp8Rope);
  for (std::size_t i = 0; i < kMlaFp8Latent; ++i) {
    float scale = 0.0F;
    const std::size_t block = i / kMlaFp8ScaleBlock;
    std::memcpy(&scale, row + kMlaFp8ScaleOffset + block * sizeof scale, sizeof scale);
    const Fp8E4m3 value{static_cast<std::uint8_t>(row[i])};
    values[i] = static_cast<double>(to_f32(value)) * scale;
  }
  for (std::size_t i = 0; i < kMlaFp8Rope; ++i) {
    Bf16 value{};
    std::memcpy(&value, row + kMlaFp8RopeOffset + i * sizeof value, sizeof value);
    values[kMlaFp8Latent + i] = to_f32(value);
  }
  return values;
}

}  // namespace kvfathom::kernels
