// The tensor-core kernels of f16 and bf16 caches.
#include "kernels/decode_attention/decode_attention_tensor_launch.h"

namespace kvfathom::kernels::decode {

template void launch_tensor_kernel<KvFormat::f16>(const Arguments& arguments, Stream stream);
template void launch_tensor_kernel<KvFormat::bf16>(const Arguments& arguments, Stream stream);

}  // namespace kvfathom::kernels::decode
