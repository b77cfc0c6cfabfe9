// Threads of the CPU versions: OpenMP, with the number of threads said at every call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>
#include <vector>

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

/// out[size] = the sum of what each thread adds to zeros in work(first, last, float* sums), over
/// its share of [0, n).
template <typename Work>
void parallel_sums(int n_threads, std::int64_t n, std::int64_t size, float* out, const Work& work) {
  std::vector<std::vector<float>> parts(
      static_cast<std::size_t>(std::max(1, n_threads_or_all(n_threads))));
  parallel_shares(n_threads, n, [&](int thread, std::int64_t first, std::int64_t last) {
    std::vector<float>& sums = parts[static_cast<std::size_t>(thread)];
    sums.assign(static_cast<std::size_t>(size), 0.0F);
    work(first, last, sums.data());
  });
  parallel_shares(n_threads, size, [&](int, std::int64_t first, std::int64_t last) {
    std::fill(out + first, out + last, 0.0F);
    for (const std::vector<float>& part : parts) {
      for (std::int64_t i = first; i < last && !part.empty(); ++i) {
        out[i] += part[static_cast<std::size_t>(i)];
      }
    }
  });
}

}  // namespace kvfathom::kernels
