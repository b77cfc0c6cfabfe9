// The tensor-core kernels of q4_0 caches.
#include "kernels/decode_attention/decode_attention_tensor_launch.h"

namespace kvfathom::kernels::decode {

template void launch_tensor_kernel<KvFormat::q4_0>(const Arguments& arguments, Stream stream);

}  // namespace kvfathom::kernels::decode
