// A random cache for kernel tests, on the host and on the device: any format, contiguous or paged,
// lengths by sequence or by KV head. Whatever no token owns is 0xff bytes, which every format and
// every scale reads as NaN: the rest of the last page, the spare pages, padding.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

#include "kernels/common/device.h"
#include "kernels/common/kv_cache.h"
#include "tests/kernels/support/random_data.h"

namespace kvfathom::kernels {

struct KvCacheSpec {
  KvFormat format = KvFormat::bf16;
  int n_kv_heads = 1;
  int k_dim = 64;
  int v_dim = 64;  ///< 0: no V at all
  /// One a sequence; n_kv_heads a sequence, [n_sequences, n_kv_heads], with lengths_per_head.
  std::vector<int> lengths;
  bool lengths_per_head = false;
  int page_tokens = 0;       ///< a power of two; 0: contiguous
  bool token_major = false;  ///< rows of one token side by side, instead of rows of one head
  float deviation = 1.0F;    ///< of the normal distribution of all elements
  std::uint64_t seed = 1;
};

class KvCacheData {
 public:
  explicit KvCacheData(const KvCacheSpec& spec)
      : spec_(spec),
        heads_of_lengths_(spec.lengths_per_head ? spec.n_kv_heads : 1),
        n_sequences_(static_cast<int>(spec.lengths.size()) / heads_of_lengths_),
        lengths_(spec.lengths.begin(), spec.lengths.end()),
        random_(spec.seed) {
    lay_out_pages();
    make_plane(k_, spec_.k_dim);
    if (spec_.v_dim > 0) {
      make_plane(v_, spec_.v_dim);
    }
    for (int sequence = 0; sequence < n_sequences_; ++sequence) {
      for (int head = 0; head < spec_.n_kv_heads; ++head) {
        for (int token = 0; token < length(sequence, head); ++token) {
          set_key(sequence, head, token, random_.normals(spec_.k_dim, spec_.deviation));
          if (spec_.v_dim > 0) {
            set_value(sequence, head, token, random_.normals(spec_.v_dim, spec_.deviation));
          }
        }
      }
    }
  }

  [[nodiscard]] const KvCacheSpec& spec() const { return spec_; }
  [[nodiscard]] int n_sequences() const { return n_sequences_; }
  [[nodiscard]] int length(int sequence, int kv_head) const {
    return lengths_[sequence * heads_of_lengths_ + (spec_.lengths_per_head ? kv_head : 0)];
  }
  [[nodiscard]] int longest() const {
    return lengths_.empty() ? 0 : *std::max_element(lengths_.begin(), lengths_.end());
  }

  /// Encodes `row` into the cache. Call before device().
  void set_key(int sequence, int kv_head, int token, std::span<const float> row) {
    set_row(k_, sequence, kv_head, token, row);
  }
  void set_value(int sequence, int kv_head, int token, std::span<const float> row) {
    set_row(v_, sequence, kv_head, token, row);
  }
  /// Makes q k = `score` for this token (before rounding): far above the rest, it takes all the
  /// weight, and an implementation that drops or misplaces the token cannot hide it.
  void plant_dominant(int sequence, int kv_head, int token, std::span<const float> q, float score) {
    const float norm = std::inner_product(q.begin(), q.end(), q.begin(), 0.0F);
    std::vector<float> key(q.begin(), q.end());
    for (float& x : key) {
      x *= score / norm;
    }
    set_key(sequence, kv_head, token, key);
  }

  /// The rows as stored.
  [[nodiscard]] std::vector<double> key(int sequence, int kv_head, int token) const {
    return stored_row(k_, sequence, kv_head, token);
  }
  [[nodiscard]] std::vector<double> value(int sequence, int kv_head, int token) const {
    return stored_row(v_, sequence, kv_head, token);
  }

  /// The view for callees on the host; valid as long as this object.
  [[nodiscard]] KvCacheView host() const {
    return view(k_.data.data(),
                k_.scales.data(),
                v_.data.data(),
                v_.scales.data(),
                page_table_.data(),
                lengths_.data());
  }
  /// Uploads the cache as it is now, and the view for callees on the device.
  [[nodiscard]] KvCacheView device() {
    for (Plane* plane : {&k_, &v_}) {
      plane->device_data = DeviceArray<std::byte>(plane->data);
      plane->device_scales = DeviceArray<std::byte>(plane->scales);
    }
    device_page_table_ = DeviceArray<std::int32_t>(page_table_);
    device_lengths_ = DeviceArray<std::int32_t>(lengths_);
    return view(k_.device_data.data(),
                k_.device_scales.data(),
                v_.device_data.data(),
                v_.device_scales.data(),
                device_page_table_.data(),
                device_lengths_.data());
  }

  /// Takes over what kernels wrote to the cache that device() uploaded.
  void download() {
    for (Plane* plane : {&k_, &v_}) {
      plane->data = plane->device_data.to_host();
      plane->scales = plane->device_scales.to_host();
    }
    lengths_ = device_lengths_.to_host();
  }
  /// All of the cache as it lies in memory, for comparing two caches of one spec.
  [[nodiscard]] std::vector<std::byte> bytes() const {
    std::vector<std::byte> all;
    for (const std::vector<std::byte>* part : {&k_.data, &k_.scales, &v_.data, &v_.scales}) {
      all.insert(all.end(), part->begin(), part->end());
    }
    return all;
  }

 private:
  struct Plane {
    KvPlane layout;  // strides only
    int dim = 0;
    std::vector<std::byte> data, scales;
    DeviceArray<std::byte> device_data, device_scales;
  };

  [[nodiscard]] bool paged() const { return spec_.page_tokens > 0; }

  void lay_out_pages() {
    if (!paged()) {
      n_pages_ = n_sequences_;
      page_tokens_ = longest() + 3;
      return;
    }
    page_tokens_ = spec_.page_tokens;
    if ((page_tokens_ & (page_tokens_ - 1)) != 0) {
      throw std::invalid_argument("KvCacheSpec: page_tokens is no power of two");
    }
    pages_per_sequence_ = std::max(1, (longest() + page_tokens_ - 1) / page_tokens_);
    n_pages_ = n_sequences_ * pages_per_sequence_ + 2;
    std::vector<std::int32_t> pages(n_pages_);
    std::iota(pages.begin(), pages.end(), 0);
    std::mt19937_64 own_engine(spec_.seed);  // so that the values do not depend on the layout
    std::shuffle(pages.begin(), pages.end(), own_engine);
    const std::int32_t never_written = pages.back();
    page_table_.assign(static_cast<std::size_t>(n_sequences_) * pages_per_sequence_, never_written);
    for (int sequence = 0; sequence < n_sequences_; ++sequence) {
      int longest_head = 0;
      for (int head = 0; head < spec_.n_kv_heads; ++head) {
        longest_head = std::max(longest_head, length(sequence, head));
      }
      for (int page = 0; page * page_tokens_ < longest_head; ++page) {
        const int entry = sequence * pages_per_sequence_ + page;
        page_table_[entry] = pages[entry];
      }
    }
  }

  void make_plane(Plane& plane, int dim) {
    plane.dim = dim;
    const std::int64_t row_bytes = row_data_bytes(spec_.format, dim);
    const std::int64_t scale_bytes = row_scale_bytes(spec_.format, dim);
    const std::int64_t rows = static_cast<std::int64_t>(page_tokens_) * spec_.n_kv_heads;
    const std::int64_t token_rows = spec_.token_major ? spec_.n_kv_heads : 1;
    const std::int64_t head_rows = spec_.token_major ? 1 : page_tokens_;
    const std::int64_t data_stride = (row_bytes + 15) / 16 * 16;
    plane.layout.page_stride_bytes = rows * data_stride;
    plane.layout.head_stride_bytes = head_rows * data_stride;
    plane.layout.token_stride_bytes = token_rows * data_stride;
    plane.layout.scale_page_stride_bytes = rows * scale_bytes;
    plane.layout.scale_head_stride_bytes = head_rows * scale_bytes;
    plane.layout.scale_token_stride_bytes = token_rows * scale_bytes;
    constexpr std::byte kPoison{0xff};
    plane.data.assign(n_pages_ * rows * data_stride, kPoison);
    plane.scales.assign(n_pages_ * rows * scale_bytes, kPoison);
    if (spec_.format == KvFormat::fp8_e4m3) {
      plane.scales.resize(spec_.n_kv_heads * sizeof(float));
      for (int head = 0; head < spec_.n_kv_heads; ++head) {
        const float scale = spec_.deviation * (0.01F + 0.003F * static_cast<float>(head));
        std::memcpy(plane.scales.data() + head * sizeof(float), &scale, sizeof(float));
      }
    }
  }

  [[nodiscard]] float head_scale(const Plane& plane, int kv_head) const {
    float scale = 1.0F;
    if (spec_.format == KvFormat::fp8_e4m3) {
      std::memcpy(&scale, plane.scales.data() + kv_head * sizeof(float), sizeof(float));
    }
    return scale;
  }

  /// Where a row's data and scales begin, in bytes from the start of the plane's buffers.
  struct RowOffsets {
    std::int64_t data, scales;
  };
  [[nodiscard]] RowOffsets offsets(const Plane& plane, int sequence, int kv_head, int token) const {
    const std::int64_t page =
        paged() ? page_table_[sequence * pages_per_sequence_ + token / page_tokens_] : sequence;
    const std::int64_t slot = paged() ? token % page_tokens_ : token;
    const KvPlane& layout = plane.layout;
    return RowOffsets{page * layout.page_stride_bytes + kv_head * layout.head_stride_bytes +
                          slot * layout.token_stride_bytes,
                      page * layout.scale_page_stride_bytes +
                          kv_head * layout.scale_head_stride_bytes +
                          slot * layout.scale_token_stride_bytes};
  }

  void set_row(Plane& plane, int sequence, int kv_head, int token, std::span<const float> row) {
    if (static_cast<int>(row.size()) != plane.dim || token >= length(sequence, kv_head)) {
      throw std::invalid_argument("KvCacheData: no such row");
    }
    const EncodedRow stored = encode_row(spec_.format, row, head_scale(plane, kv_head));
    const RowOffsets at = offsets(plane, sequence, kv_head, token);
    std::copy(stored.data.begin(), stored.data.end(), plane.data.begin() + at.data);
    std::copy(stored.scales.begin(), stored.scales.end(), plane.scales.begin() + at.scales);
  }

  [[nodiscard]] std::vector<double> stored_row(const Plane& plane,
                                               int sequence,
                                               int kv_head,
                                               int token) const {
    const RowOffsets at = offsets(plane, sequence, kv_head, token);
    return decode_row(spec_.format,
                      plane.dim,
                      plane.data.data() + at.data,
                      plane.scales.data() + at.scales,
                      head_scale(plane, kv_head));
  }

  [[nodiscard]] KvCacheView view(const std::byte* k_data,
                                 const std::byte* k_scales,
                                 const std::byte* v_data,
                                 const std::byte* v_scales,
                                 const std::int32_t* page_table,
                                 const std::int32_t* lengths) const {
    KvCacheView cache;
    cache.format = spec_.format;
    cache.n_sequences = n_sequences_;
    cache.n_kv_heads = spec_.n_kv_heads;
    cache.k = k_.layout;
    cache.k.data = k_data;
    cache.k.scales = k_.scales.empty() ? nullptr : k_scales;
    if (spec_.v_dim > 0) {
      cache.v = v_.layout;
      cache.v.data = v_data;
      cache.v.scales = v_.scales.empty() ? nullptr : v_scales;
    }
    if (paged()) {
      cache.page_table = page_table;
      cache.pages_per_sequence = pages_per_sequence_;
      while ((1 << cache.log2_page_tokens) < page_tokens_) {
        ++cache.log2_page_tokens;
      }
    }
    cache.lengths = lengths;
    cache.lengths_per_head = spec_.lengths_per_head;
    return cache;
  }

  KvCacheSpec spec_;
  int heads_of_lengths_;
  int n_sequences_;
  std::vector<std::int32_t> lengths_;
  RandomData random_;
  int page_tokens_ = 0;  // of a page, or of a sequence's whole region when contiguous
  int pages_per_sequence_ = 0;
  int n_pages_ = 0;
  std::vector<std::int32_t> page_table_;
  Plane k_, v_;
  DeviceArray<std::int32_t> device_page_table_, device_lengths_;
};

}  // namespace kvfathom::kernels
