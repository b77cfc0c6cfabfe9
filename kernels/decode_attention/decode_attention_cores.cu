// The CUDA-core kernels of all formats.
#include "kernels/common/dispatch.h"
#include "kernels/decode_attention/decode_attention_cores.h"
#include "kernels/decode_attention/decode_attention_launch.h"

namespace kvfathom::kernels::decode {

template <KvFormat kFormat>
void launch_cuda_core_kernel(const Arguments& arguments, Stream stream) {
  const DecodeAttentionParams& params = arguments.params;
  dispatch(head_dims<kFormat>(), params.head_dim, "head_dim", [](auto) {});  // same as elsewhere
  int group_lanes = 8;
  while (group_lanes * kLaneElements < params.head_dim) {
    group_lanes *= 2;
  }
  dispatch(std::integer_sequence<int, 8, 16, 32>{}, group_lanes, "group", [&](auto lanes) {
    const int ratio = params.n_heads / params.cache.n_kv_heads;
    const std::size_t shared_bytes =
        block_states_bytes(kThreads / lanes, std::min(ratio, kCoreRows), params.head_dim);
    simt::launch(cuda_core_kernel<kFormat, lanes>,
                 block_grid(arguments, kCoreRows),
                 kThreads,
                 shared_bytes,
                 stream,
                 arguments);
  });
}

template void launch_cuda_core_kernel<KvFormat::f16>(const Arguments& arguments, Stream stream);
template void launch_cuda_core_kernel<KvFormat::bf16>(const Arguments& arguments, Stream stream);
template void launch_cuda_core_kernel<KvFormat::q8_0>(const Arguments& arguments, Stream stream);
template void launch_cuda_core_kernel<KvFormat::q4_0>(const Arguments& arguments, Stream stream);
template void launch_cuda_core_kernel<KvFormat::int8_token>(const Arguments& arguments,
                                                            Stream stream);
template void launch_cuda_core_kernel<KvFormat::fp8_e4m3>(const Arguments& arguments,
                                                          Stream stream);

}  // namespace kvfathom::kernels::decode
