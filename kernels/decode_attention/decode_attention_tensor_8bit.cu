// The tensor-core kernels of the caches of 8-bit elements.
#include "kernels/decode_attention/decode_attention_tensor_launch.h"

namespace kvfathom::kernels::decode {

template void launch_tensor_kernel<KvFormat::q8_0>(const Arguments& arguments, Stream stream);
template void launch_tensor_kernel<KvFormat::int8_token>(const Arguments& arguments, Stream stream);
template void launch_tensor_kernel<KvFormat::fp8_e4m3>(const Arguments& arguments, Stream stream);

}  // namespace kvfathom::kernels::decode
