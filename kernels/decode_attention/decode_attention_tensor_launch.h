// Instantiates the tensor-core kernel; only the .cu files of the formats include this.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/decode_attention/decode_attention_launch.h"
#include "kernels/decode_attention/decode_attention_tensor.h"

namespace kvfathom::kernels::decode {

template <KvFormat kFormat>
void launch_tensor_kernel(const Arguments& arguments, Stream stream) {
  const DecodeAttentionParams& params = arguments.params;
  dispatch(head_dims<kFormat>(), params.head_dim, "head_dim", [&](auto head_dim) {
    const int ratio = params.n_heads / params.cache.n_kv_heads;
    const std::size_t shared_bytes =
        TensorShape<kFormat, head_dim>::shared_bytes(std::min(ratio, kTensorRows));
    simt::launch(tensor_kernel<kFormat, head_dim>,
                 block_grid(arguments, kTensorRows),
                 kThreads,
                 shared_bytes,
                 stream,
                 arguments);
  });
}

}  // namespace kvfathom::kernels::decode
