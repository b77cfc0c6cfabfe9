#include "kernels/common/parallel.h"
#include "kernels/launch/launch.h"

namespace kvfathom::kernels {

void empty_launch_cpu(const EmptyLaunchParams& params, int n_threads) {
  const int threads = n_threads_or_all(n_threads);
  for (int i = 0; i < params.n_launches; ++i) {
    parallel_shares(threads, threads, [&](int thread, std::int64_t, std::int64_t) {
      if (thread == 0 && params.counter != nullptr) {
        ++*params.counter;
      }
    });
  }
}

}  // namespace kvfathom::kernels
