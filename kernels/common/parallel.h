// Threads of the CPU versions: OpenMP, with the number of threads said at every call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

#include <omp.h>

namespace kvfathom::kernels {

/// The threads that a CPU version uses where its caller says 0.
[[nodiscard]] inline int n_threads_or_all(int n_threads) {
  return n_threads > 0 ? n_threads : omp_get_max_threads();
}

/// Calls work(thread, first, last) once a thread with consecutive, equal shares of [0, n). An
/// exception of one share is thrown here after all have ended.
template <typename Work>
void parallel_shares(int n_threads, std::int64_t n, const Work& work) {
  const int threads =
      static_cast<int>(std::clamp<std::int64_t>(n, 1, std::max(1, n_threads_or_all(n_threads))));
  std::exception_ptr error;
  std::mutex error_mutex;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) {
    try {
      work(thread, n * thread / threads, n * (thread + 1) / threads);
    } catch (...) {
      const std::scoped_lock lock(error_mutex);
      error = std::current_exception();
    }
  }
  if (error) {
    std::rethrow_exception(error);
  }
}

}  // namespace kvfathom::kernels
