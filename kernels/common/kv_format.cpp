#include "kernels/common/kv_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "kernels/common/error.h"

namespace kvfathom::kernels {
namespace {

void require_whole_blocks(KvFormat format, int n) {
  if (n <= 0 || n % kQuantBlock != 0) {
    throw UnsupportedShape(std::string(name(format)) + ": a row of " + std::to_string(n) +
                           " elements holds no whole blocks of 32");
  }
}

template <typename T>
void put(std::vector<std::byte>& bytes, std::size_t index, T value) {
  std::memcpy(bytes.data() + index * sizeof(T), &value, sizeof(T));
}
template <typename T>
T get(const std::byte* bytes, std::size_t index) {
  T value{};
  std::memcpy(&value, bytes + index * sizeof(T), sizeof(T));
  return value;
}

/// Blocks of infinities, or of values so small that their scale has no inverse, are stored as 0.
int truncated(float x) {
  return std::isfinite(x) ? static_cast<int>(x) : 0;
}

void encode_q8_0(std::span<const float> block, std::size_t index, EncodedRow& out) {
  float largest = 0.0F;
  for (const float x : block) {
    largest = std::max(largest, std::fabs(x));
  }
  const float scale = largest / 127.0F;
  const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
  put(out.scales, index, to_f16(scale));
  for (std::size_t i = 0; i < block.size(); ++i) {
    put(out.data,
        index * kQuantBlock + i,
        static_cast<std::int8_t>(truncated(std::round(block[i] * inverse))));
  }
}

void encode_q4_0(std::span<const float> block, std::size_t index, EncodedRow& out) {
  float extreme = 0.0F;  // the value of largest magnitude, with its sign: it maps to -8 exactly
  for (const float x : block) {
    extreme = std::fabs(x) > std::fabs(extreme) ? x : extreme;
  }
  const float scale = extreme / -8.0F;
  const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
  put(out.scales, index, to_f16(scale));
  const auto nibble = [&](std::size_t i) {
    return static_cast<unsigned>(std::min(15, truncated(block[i] * inverse + 8.5F)));
  };
  for (std::size_t i = 0; i < kQuantBlock / 2; ++i) {
    put(out.data,
        index * kQuantBlock / 2 + i,
        static_cast<std::uint8_t>(nibble(i) | nibble(i + kQuantBlock / 2) << 4));
  }
}

void encode_int8_token(std::span<const float> row, EncodedRow& out) {
  float largest = 0.0F;
  for (const float x : row) {
    largest = std::max(largest, std::fabs(x));
  }
  const float scale = largest / 127.0F;
  put(out.scales, 0, scale);
  for (std::size_t i = 0; i < row.size(); ++i) {
    const float x = scale != 0.0F ? row[i] / scale : 0.0F;
    put(out.data, i, static_cast<std::int8_t>(std::nearbyint(x)));
  }
}

double quantised_value(KvFormat format, const std::byte* data, std::size_t i) {
  if (format != KvFormat::q4_0) {
    return get<std::int8_t>(data, i);
  }
  const std::size_t block = i / kQuantBlock;
  const std::size_t at = i % kQuantBlock;
  const auto byte = get<std::uint8_t>(data, block * kQuantBlock / 2 + at % (kQuantBlock / 2));
  return static_cast<int>(at < kQuantBlock / 2 ? byte & 0xfU : byte >> 4) - 8;
}

}  // namespace

std::string_view name(KvFormat format) {
  switch (format) {
    case KvFormat::f16:
      return "f16";
    case KvFormat::bf16:
      return "bf16";
    case KvFormat::q8_0:
      return "q8_0";
    case KvFormat::q4_0:
      return "q4_0";
    case KvFormat::int8_token:
      return "int8_token";
    case KvFormat::fp8_e4m3:
      return "fp8_e4m3";
  }
  throw UnsupportedShape("a KvFormat that has no name");
}

std::int64_t row_data_bytes(KvFormat format, int n) {
  switch (format) {
    case KvFormat::f16:
    case KvFormat::bf16:
      return std::int64_t{2} * n;
    case KvFormat::q8_0:
      require_whole_blocks(format, n);
      return n;
    case KvFormat::q4_0:
      require_whole_blocks(format, n);
      return n / 2;
    case KvFormat::int8_token:
    case KvFormat::fp8_e4m3:
      return n;
  }
  throw UnsupportedShape("a KvFormat that has no size");
}

std::int64_t row_scale_bytes(KvFormat format, int n) {
  switch (format) {
    case KvFormat::q8_0:
    case KvFormat::q4_0:
      require_whole_blocks(format, n);
      return std::int64_t{2} * n / kQuantBlock;
    case KvFormat::int8_token:
      return 4;
    default:
      return 0;
  }
}

EncodedRow encode_row(KvFormat format, std::span<const float> row, float head_scale) {
  const int n = static_cast<int>(row.size());
  EncodedRow out{std::vector<std::byte>(row_data_bytes(format, n)),
                 std::vector<std::byte>(row_scale_bytes(format, n))};
  switch (format) {
    case KvFormat::q8_0:
    case KvFormat::q4_0:
      for (std::size_t block = 0; block < row.size() / kQuantBlock; ++block) {
        const auto values = row.subspan(block * kQuantBlock, kQuantBlock);
        format == KvFormat::q8_0 ? encode_q8_0(values, block, out)
                                 : encode_q4_0(values, block, out);
      }
      break;
    case KvFormat::int8_token:
      encode_int8_token(row, out);
      break;
    default:
      for (std::size_t i = 0; i < row.size(); ++i) {
        if (format == KvFormat::f16) {
          put(out.data, i, to_f16(row[i]));
        } else if (format == KvFormat::bf16) {
          put(out.data, i, to_bf16(row[i]));
        } else {
          put(out.data, i, to_fp8_e4m3(row[i] / head_scale));
        }
      }
  }
  return out;
}

std::vector<double> decode_row(
    KvFormat format, int n, const std::byte* data, const std::byte* scales, float head_scale) {
  std::vector<double> row(n);
  for (std::size_t i = 0; i < row.size(); ++i) {
    switch (format) {
      case KvFormat::f16:
        row[i] = to_f32(get<F16>(data, i));
        break;
      case KvFormat::bf16:
        row[i] = to_f32(get<Bf16>(data, i));
        break;
      case KvFormat::fp8_e4m3:
        row[i] = static_cast<double>(to_f32(get<Fp8E4m3>(data, i))) * head_scale;
        break;
      case KvFormat::int8_token:
        row[i] = quantised_value(format, data, i) * get<float>(scales, 0);
        break;
      case KvFormat::q8_0:
      case KvFormat::q4_0:
        row[i] = quantised_value(format, data, i) * to_f32(get<F16>(scales, i / kQuantBlock));
        break;
    }
  }
  return row;
}

}  // namespace kvfathom::kernels
