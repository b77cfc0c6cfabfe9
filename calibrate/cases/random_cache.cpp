#include "calibrate/cases/random_cache.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <random>

#include "kernels/common/kv_rows_cpu.h"
#include "kernels/common/number_formats.h"
#include "model/error.h"

namespace kvfathom::bench {
namespace {

using kernels::KvFormat;

/// Sign and mantissa stay random, the exponent becomes that of [0.5, 1), in each element of a word.
std::uint32_t element_bits(KvFormat format, std::uint32_t random) {
  switch (format) {
    case KvFormat::f16:
      return (random & 0x83ff83ffU) | 0x38003800U;
    case KvFormat::bf16:
      return (random & 0x807f807fU) | 0x3f003f00U;
    case KvFormat::fp8_e4m3:
      return (random & 0x87878787U) | 0x30303030U;
    case KvFormat::q8_0:
    case KvFormat::q4_0:
    case KvFormat::int8_token:
      return random;
  }
  return random;
}

std::uint32_t scale_bits(KvFormat format) {
  if (format == KvFormat::q8_0 || format == KvFormat::q4_0) {
    const float scale = format == KvFormat::q8_0 ? 1.0F / 128.0F : 1.0F / 8.0F;
    const std::uint32_t bits = kernels::to_f16(scale).bits;
    return bits << 16 | bits;
  }
  return kernels::bits_of_f32(format == KvFormat::int8_token ? 1.0F / 128.0F : 1.0F);
}

}  // namespace

KvFormat kv_format_named(std::string_view name) {
  for (const KvFormat format : kernels::kAllKvFormats) {
    if (kernels::name(format) == name) {
      return format;
    }
  }
  throw InputError("--formats", std::string(name) + " is no cache format", "");
}

std::vector<std::string> kv_format_names() {
  std::vector<std::string> names;
  for (const KvFormat format : kernels::kAllKvFormats) {
    names.emplace_back(kernels::name(format));
  }
  return names;
}

RandomCacheShape cache_shape_of(const Request& request) {
  const Shape& shape = request.shape;
  return {.format = kv_format_named(request.format),
          .n_sequences = shape.as_int("n_sequences"),
          .n_kv_heads = shape.as_int("n_kv_heads"),
          .k_dim = shape.as_int("head_dim"),
          .v_dim = shape.as_int("head_dim"),
          .tokens = shape.as_int("tokens"),
          .token_major = shape.has("token_major") && shape["token_major"] != 0};
}

std::int64_t stored_row_bytes(const Request& request) {
  const KvFormat format = kv_format_named(request.format);
  const int dim = request.shape.as_int("head_dim");
  return kernels::row_data_bytes(format, dim) + kernels::row_scale_bytes(format, dim);
}

std::vector<double> stored_row(const kernels::KvCacheView& cache,
                               const kernels::KvPlane& plane,
                               int sequence,
                               int kv_head,
                               int token,
                               int dim) {
  const kernels::KvSlot at = slot_of(cache, sequence, token);
  const bool scaled = kernels::row_scale_bytes(cache.format, dim) > 0;
  return kernels::decode_row(cache.format,
                             dim,
                             row_data(plane, at, kv_head),
                             scaled ? row_scales(plane, at, kv_head) : nullptr,
                             head_scale_of(cache, plane, kv_head));
}

RandomCache::RandomCache(Place place, const RandomCacheShape& shape, std::uint64_t seed)
    : shape_(shape) {
  view_.format = shape.format;
  view_.n_sequences = shape.n_sequences;
  view_.n_kv_heads = shape.n_kv_heads;
  make_pages(place, seed);
  view_.k = make_plane(place, shape.k_dim, 2 * seed);
  if (shape.v_dim > 0) {
    view_.v = make_plane(place, shape.v_dim, 2 * seed + 1);
  }
  point_to_arrays();
}

RandomCache RandomCache::on_host() const {
  RandomCache copy;
  copy.shape_ = shape_;
  copy.view_ = view_;
  for (const Array<std::uint32_t>& array : arrays_) {
    copy.arrays_.emplace_back(Place::cpu, array.to_host());
  }
  for (const Array<std::int32_t>& array : indices_) {
    copy.indices_.emplace_back(Place::cpu, array.to_host());
  }
  copy.point_to_arrays();
  return copy;
}

void RandomCache::point_to_arrays() {
  view_.page_table = shape_.page_tokens > 0 ? indices_.front().data() : nullptr;
  view_.lengths = indices_.back().data();
  const bool scaled = arrays_.size() > (shape_.v_dim > 0 ? 2U : 1U);
  auto array = arrays_.begin();
  for (kernels::KvPlane* plane : {&view_.k, &view_.v}) {
    if (array != arrays_.end()) {
      plane->data = reinterpret_cast<const std::byte*>((array++)->data());
      plane->scales = scaled ? reinterpret_cast<const std::byte*>((array++)->data()) : nullptr;
    }
  }
}

void RandomCache::make_pages(Place place, std::uint64_t seed) {
  n_pages_ = shape_.n_sequences;
  page_tokens_ = shape_.tokens;
  if (shape_.page_tokens > 0) {
    page_tokens_ = shape_.page_tokens;
    view_.pages_per_sequence = (shape_.tokens + page_tokens_ - 1) / page_tokens_;
    view_.log2_page_tokens = std::countr_zero(static_cast<unsigned>(page_tokens_));
    n_pages_ *= view_.pages_per_sequence;
    std::vector<std::int32_t> table(n_pages_);
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937_64(seed));
    indices_.emplace_back(place, table);
  }
  const std::vector<std::int32_t> lengths(shape_.n_sequences, shape_.tokens);
  indices_.emplace_back(place, lengths);
}

kernels::KvPlane RandomCache::make_plane(Place place, int dim, std::uint64_t seed) {
  const KvFormat format = shape_.format;
  const std::int64_t rows = static_cast<std::int64_t>(page_tokens_) * shape_.n_kv_heads;
  const std::int64_t rows_to_next_token = shape_.token_major ? shape_.n_kv_heads : 1;
  const std::int64_t rows_to_next_head = shape_.token_major ? 1 : page_tokens_;
  const std::int64_t row_bytes = kernels::row_data_bytes(format, dim);
  kernels::KvPlane plane;
  plane.token_stride_bytes = rows_to_next_token * row_bytes;
  plane.head_stride_bytes = rows_to_next_head * row_bytes;
  plane.page_stride_bytes = rows * row_bytes;
  std::vector<std::uint32_t> words(n_pages_ * plane.page_stride_bytes / 4);
  fill_random(words, seed);
  for (std::uint32_t& word : words) {
    word = element_bits(format, word);
  }
  arrays_.emplace_back(place, words);

  const std::int64_t row_scale_bytes = kernels::row_scale_bytes(format, dim);
  plane.scale_token_stride_bytes = rows_to_next_token * row_scale_bytes;
  plane.scale_head_stride_bytes = rows_to_next_head * row_scale_bytes;
  plane.scale_page_stride_bytes = rows * row_scale_bytes;
  const std::int64_t scale_bytes = format == KvFormat::fp8_e4m3
                                       ? std::int64_t{4} * shape_.n_kv_heads
                                       : n_pages_ * plane.scale_page_stride_bytes;
  if (scale_bytes > 0) {
    words.assign((scale_bytes + 3) / 4, scale_bits(format));
    arrays_.emplace_back(place, words);
  }
  return plane;
}

}  // namespace kvfathom::bench
