// What every version of the value reconstruction agrees on: shapes and scratch memory.
#include "kernels/value_reconstruction/value_reconstruction.h"

#include <string>

#include "kernels/common/error.h"
#include "kernels/value_reconstruction/value_decode_scratch.h"

namespace kvfathom::kernels {

void value_reconstruction_check(const ValueReconstructionParams& p) {
  const auto refuse = [](const std::string& what) { throw UnsupportedShape(what); };
  if (p.cache.format != KvFormat::bf16 && p.cache.format != KvFormat::f16) {
    refuse("values are rebuilt from bf16 and f16 keys, not from " +
           std::string(name(p.cache.format)));
  }
  if (p.head_dim < 16 || p.head_dim % 16 != 0) {
    refuse("head_dim = " + std::to_string(p.head_dim) + " is no multiple of 16");
  }
  if (p.cache.n_kv_heads < 1 || p.n_heads < 1 || p.n_heads % p.cache.n_kv_heads != 0) {
    refuse("n_heads = " + std::to_string(p.n_heads) +
           " is no multiple of n_kv_heads = " + std::to_string(p.cache.n_kv_heads));
  }
  if (p.cache.lengths_per_head) {
    refuse("a value needs the keys of all heads: lengths by head cannot be");
  }
}

int value_decode_splits(const ValueReconstructionParams& params,
                        int longest_tokens,
                        const DeviceInfo& device) {
  const int column_tiles = (kv_width(params) + kSumColumns - 1) / kSumColumns;
  const int rows = sum_rows(params.n_heads);
  const int row_tiles = (params.n_heads + rows - 1) / rows;
  return grouped_sum_splits(
      params.cache.n_sequences * column_tiles * row_tiles, longest_tokens, device);
}

std::int64_t value_decode_scratch_bytes(const ValueReconstructionParams& params,
                                        int longest_tokens,
                                        int n_splits) {
  return ValueDecodeLayout(params, longest_tokens, n_splits).end;
}

}  // namespace kvfathom::kernels
