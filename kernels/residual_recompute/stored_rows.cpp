#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/common/error.h"
#include "kernels/residual_recompute/residual_recompute.h"

namespace kvfathom::kernels {
namespace {

constexpr int kWordBits = 32;

int words_of_row(const StoredRows& rows) {
  return rows.n_columns / kWordBits * rows.bits;
}

std::int64_t group_of(const StoredRows& rows, std::int64_t token, int column) {
  return rows.axis == GroupAxis::channels
             ? token * (rows.n_columns / kRowGroup) + column / kRowGroup
             : token / kRowGroup * rows.n_columns + column;
}

void check_uniform(const StoredRows& rows) {
  const bool known = rows.bits == 2 || rows.bits == 3 || rows.bits == 4 || rows.bits == 8;
  if (rows.format != RowFormat::uniform || !known) {
    throw UnsupportedShape("stored rows: codes have 2, 3, 4 or 8 bits, found " +
                           std::to_string(rows.bits));
  }
  const int whole = rows.axis == GroupAxis::channels ? kRowGroup : kWordBits;
  if (rows.n_columns <= 0 || rows.n_columns % whole != 0) {
    throw UnsupportedShape("stored rows: n_columns = " + std::to_string(rows.n_columns) +
                           " is not a multiple of " + std::to_string(whole));
  }
}

}  // namespace

double stored_row_bytes(const StoredRows& rows) {
  if (rows.format == RowFormat::bf16) {
    return 2.0 * rows.n_columns;
  }
  return rows.n_columns * (rows.bits / 8.0 + 4.0 / kRowGroup);
}

StoredRows EncodedRows::view(const StoredRows& like) const {
  StoredRows rows = like;
  rows.data = words.data();
  rows.steps = steps.data();
  rows.minima = minima.data();
  return rows;
}

EncodedRows encode_rows(const StoredRows& like, std::span<const float> values) {
  check_uniform(like);
  const auto n_tokens = static_cast<std::int64_t>(values.size()) / like.n_columns;
  const std::int64_t n_groups =
      n_tokens == 0 ? 0 : group_of(like, n_tokens - 1, like.n_columns - 1) + 1;
  std::vector<float> smallest(n_groups, INFINITY);
  std::vector<float> largest(n_groups, -INFINITY);
  for (std::int64_t i = 0; i < n_tokens * like.n_columns; ++i) {
    const std::int64_t group =
        group_of(like, i / like.n_columns, static_cast<int>(i % like.n_columns));
    smallest[group] = std::min(smallest[group], values[i]);
    largest[group] = std::max(largest[group], values[i]);
  }
  EncodedRows out;
  const auto top = static_cast<float>((1 << like.bits) - 1);
  for (std::int64_t group = 0; group < n_groups; ++group) {
    out.minima.push_back(to_f16(smallest[group]));
    out.steps.push_back(to_f16((largest[group] - smallest[group]) / top));
  }
  out.words.resize(n_tokens * words_of_row(like));
  for (std::int64_t i = 0; i < n_tokens * like.n_columns; ++i) {
    const std::int64_t token = i / like.n_columns;
    const int column = static_cast<int>(i % like.n_columns);
    const std::int64_t group = group_of(like, token, column);
    const float step = to_f32(out.steps[group]);
    const float code = step > 0.0F ? (values[i] - to_f32(out.minima[group])) / step : 0.0F;
    const auto bits = static_cast<std::uint64_t>(std::clamp(std::nearbyint(code), 0.0F, top));
    const int first_bit = column * like.bits;
    const std::uint64_t placed = bits << first_bit % kWordBits;
    std::uint32_t* word = &out.words[token * words_of_row(like) + first_bit / kWordBits];
    word[0] |= static_cast<std::uint32_t>(placed);
    if (placed >> kWordBits != 0) {
      word[1] |= static_cast<std::uint32_t>(placed >> kWordBits);
    }
  }
  return out;
}

double stored_value(const StoredRows& rows, std::int64_t token, int column) {
  if (rows.format == RowFormat::bf16) {
    return to_f32(static_cast<const Bf16*>(rows.data)[token * rows.n_columns + column]);
  }
  const auto* words = static_cast<const std::uint32_t*>(rows.data) + token * words_of_row(rows);
  unsigned code = 0;
  for (int bit = 0; bit < rows.bits; ++bit) {
    const int at = column * rows.bits + bit;
    code |= (words[at / kWordBits] >> at % kWordBits & 1U) << bit;
  }
  const std::int64_t group = group_of(rows, token, column);
  return static_cast<double>(to_f32(rows.minima[group])) +
         static_cast<double>(code) * static_cast<double>(to_f32(rows.steps[group]));
}

void check_residual_recompute(const ResidualRecomputeParams& p) {
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) {
      throw UnsupportedShape("residual_recompute: " + what);
    }
  };
  for (const StoredRows* rows : {&p.x, &p.x_v}) {
    if (rows->data == nullptr) {
      require(rows == &p.x_v, "there is no x");
    } else if (rows->format == RowFormat::uniform) {
      check_uniform(*rows);
    } else {
      require(rows->n_columns > 0 && rows->n_columns % kWordBits == 0,
              "n_columns = " + std::to_string(rows->n_columns) + " is not a multiple of 32");
    }
  }
  require(p.x_v.data == nullptr || p.x_v.n_columns == p.x.n_columns,
          "the latents of K and V have the same rank");
  require(p.to.head_dim % 8 == 0, "head_dim is a multiple of 8");
  require(p.chunk_tokens > 0, "chunk_tokens is positive");
  check_cache_write(p.to);
}

CacheWriteParams cache_write_of_chunk(const ResidualRecomputeParams& params,
                                      std::int64_t first,
                                      std::int64_t count,
                                      Element element,
                                      const void* k,
                                      const void* v) {
  CacheWriteParams write = params.to;
  write.n_tokens = static_cast<int>(count);
  write.element = element;
  write.k = k;
  write.v = v;
  write.sequences += first;
  write.slots += first;
  write.positions = write.positions != nullptr ? write.positions + first : nullptr;
  return write;
}

std::int64_t residual_recompute_scratch_bytes(const ResidualRecomputeParams& params) {
  const std::int64_t width = std::int64_t{params.to.cache.n_kv_heads} * params.to.head_dim;
  const int n_inputs = params.x_v.data != nullptr ? 2 : 1;
  const std::int64_t columns = n_inputs * params.x.n_columns + 2 * width;
  return params.chunk_tokens * columns * static_cast<std::int64_t>(sizeof(Bf16));
}

}  // namespace kvfathom::kernels
