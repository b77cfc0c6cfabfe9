#include "kernels/common/error.h"
#include "kernels/decode_attention/decode_attention.h"
#include "kernels/decode_attention/decode_attention_launch.h"

namespace kvfathom::kernels {
namespace {

void require_supported(const DecodeAttentionParams& params, int n_splits) {
  if (params.cache.n_kv_heads <= 0 || params.n_heads % params.cache.n_kv_heads != 0) {
    throw UnsupportedShape("decode_attention: query heads are not a multiple of KV heads");
  }
  if (n_splits < 1) {
    throw UnsupportedShape("decode_attention: less than one split");
  }
  for (const KvPlane& plane : {params.cache.k, params.cache.v}) {
    const std::int64_t offsets = reinterpret_cast<std::intptr_t>(plane.data) |
                                 plane.page_stride_bytes | plane.head_stride_bytes |
                                 plane.token_stride_bytes;
    if (offsets % 16 != 0) {  // rows are read in pieces of up to 16 bytes
      throw UnsupportedShape("decode_attention: rows must start on 16-byte boundaries");
    }
  }
}

template <KvFormat kFormat>
void launch_runs(const decode::Arguments& arguments, DecodeKernel kernel, Stream stream) {
  if (kernel == DecodeKernel::tensor_cores) {
    decode::launch_tensor_kernel<kFormat>(arguments, stream);
  } else {
    decode::launch_cuda_core_kernel<kFormat>(arguments, stream);
  }
}

void launch_runs(const decode::Arguments& arguments, DecodeKernel kernel, Stream stream) {
  switch (arguments.params.cache.format) {
    case KvFormat::f16:
      return launch_runs<KvFormat::f16>(arguments, kernel, stream);
    case KvFormat::bf16:
      return launch_runs<KvFormat::bf16>(arguments, kernel, stream);
    case KvFormat::q8_0:
      return launch_runs<KvFormat::q8_0>(arguments, kernel, stream);
    case KvFormat::q4_0:
      return launch_runs<KvFormat::q4_0>(arguments, kernel, stream);
    case KvFormat::int8_token:
      return launch_runs<KvFormat::int8_token>(arguments, kernel, stream);
    case KvFormat::fp8_e4m3:
      return launch_runs<KvFormat::fp8_e4m3>(arguments, kernel, stream);
  }
}

}  // namespace

void decode_attention_launch(const DecodeAttentionParams& params,
                             int n_splits,
                             void* scratch,
                             Stream stream,
                             DecodeKernel kernel) {
  kernel = decode_attention_kernel(params, kernel, device());
  require_supported(params, n_splits);
  if (params.cache.n_sequences == 0) {
    return;
  }
  const std::int64_t n_rows = std::int64_t{params.cache.n_sequences} * params.n_heads;
  decode::Arguments arguments{params, SplitStates{nullptr, nullptr, 1}};
  if (n_splits > 1) {
    arguments.states = split_states_at(scratch, n_rows, n_splits, params.head_dim);
  }
  launch_runs(arguments, kernel, stream);
  if (n_splits > 1) {
    combine_splits_launch(arguments.states,
                          n_rows,
                          params.n_heads,
                          params.head_dim,
                          params.sink_logits,
                          params.out,
                          stream);
  }
}

}  // namespace kvfathom::kernels
