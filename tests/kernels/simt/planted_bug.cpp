// A kernel with one bug, for the sanitizer that must name it: a missing barrier, or an access one
// element beyond shared or global memory.
#include <cstring>

#include "kernels/simt/simt.h"

namespace kvfathom::kernels::simt {
namespace {

SIMT_KERNEL void forget_barrier(float* out) {
  float* shared = shared_memory<float>();
  shared[thread_idx().x] = 1.0F;
  st(out + thread_idx().x, shared[block_dim().x - 1 - thread_idx().x]);
}

SIMT_KERNEL void write_beyond_shared(float* out) {
  shared_memory<float>()[thread_idx().x + 1] = 1.0F;
  st(out + thread_idx().x, 1.0F);
}

SIMT_KERNEL void write_beyond_global(float* out) {
  st(out + thread_idx().x + 1, 1.0F);
}

}  // namespace
}  // namespace kvfathom::kernels::simt

int main(int argc, char** argv) {
  using namespace kvfathom::kernels;  // NOLINT
  constexpr unsigned kThreads = 96;
  const DeviceArray<float> out(kThreads);
  const char* bug = argc > 1 ? argv[1] : "";
  auto* kernel = std::strcmp(bug, "race") == 0     ? simt::forget_barrier
                 : std::strcmp(bug, "shared") == 0 ? simt::write_beyond_shared
                                                   : simt::write_beyond_global;
  simt::launch(kernel, 1, kThreads, kThreads * sizeof(float), nullptr, out.data());
}
