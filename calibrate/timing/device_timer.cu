#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "calibrate/timing/device_timer.h"
#include "kernels/common/error.h"

namespace kvfathom {
namespace {

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) {
    throw kernels::DeviceError(std::string(call) + ": " + cudaGetErrorString(status));
  }
}

/// Nanoseconds and clock cycles at one moment on one multiprocessor: two of them give the clock.
struct ClockStamp {
  unsigned long long time_ns;
  unsigned long long cycles;
  unsigned multiprocessor;
};

__global__ void stamp_clock(ClockStamp* stamp) {
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(stamp->time_ns));
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(stamp->cycles));
  asm volatile("mov.u32 %0, %%smid;" : "=r"(stamp->multiprocessor));
}

/// 0 where the stamps are of different multiprocessors, whose counters differ.
double clock_mhz(const ClockStamp& before, const ClockStamp& after) {
  if (before.multiprocessor != after.multiprocessor || after.time_ns <= before.time_ns) {
    return 0.0;
  }
  return static_cast<double>(after.cycles - before.cycles) /
         static_cast<double>(after.time_ns - before.time_ns) * 1e3;
}

class Event {
 public:
  Event() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  [[nodiscard]] double seconds_until(const Event& later) const {
    float ms = 0.0F;
    check(cudaEventSynchronize(later.event_), "cudaEventSynchronize");
    check(cudaEventElapsedTime(&ms, event_, later.event_), "cudaEventElapsedTime");
    return static_cast<double>(ms) * 1e-3;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

class OwnStream {
 public:
  OwnStream() { check(cudaStreamCreate(&stream_), "cudaStreamCreate"); }
  ~OwnStream() { cudaStreamDestroy(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  [[nodiscard]] cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// `n_runs` runs on sets in turn.
void enqueue_runs(const DeviceRun& run, int n_runs, int n_sets, cudaStream_t stream) {
  for (int i = 0; i < n_runs; ++i) {
    run(i % n_sets, stream);
  }
}

/// The same, recorded once and replayed.
class RecordedRuns {
 public:
  RecordedRuns(const DeviceRun& run, int n_runs, int n_sets, cudaStream_t stream) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
          "cudaStreamBeginCapture");
    enqueue_runs(run, n_runs, n_sets, stream);
    check(cudaStreamEndCapture(stream, &graph_), "cudaStreamEndCapture");
    check(cudaGraphInstantiate(&executable_, graph_, 0), "cudaGraphInstantiate");
  }
  ~RecordedRuns() {
    cudaGraphExecDestroy(executable_);
    cudaGraphDestroy(graph_);
  }
  RecordedRuns(const RecordedRuns&) = delete;
  RecordedRuns& operator=(const RecordedRuns&) = delete;
  void replay(cudaStream_t stream) const {
    check(cudaGraphLaunch(executable_, stream), "cudaGraphLaunch");
  }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

/// Loads the kernels, raises the clocks, and returns the seconds of one run, launch gaps included.
double warm_up(const DeviceRun& run, int n_sets, cudaStream_t stream) {
  Event begin;
  Event end;
  const int n_runs = std::max(3, std::min(n_sets, 64));
  for (int round = 0; round < 2; ++round) {
    begin.record(stream);
    enqueue_runs(run, n_runs, n_sets, stream);
    end.record(stream);
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }
  return begin.seconds_until(end) / n_runs;
}

}  // namespace

Timing time_on_device(const DeviceRun& run,
                      int n_sets,
                      const TimerOptions& options,
                      Enqueue enqueue) {
  static_cast<void>(kernels::device());
  const OwnStream own_stream;
  cudaStream_t const stream = own_stream.get();
  const int n_runs = runs_per_sample(warm_up(run, n_sets, stream), n_sets, options);
  std::optional<RecordedRuns> recorded;
  if (enqueue == Enqueue::graph) {
    recorded.emplace(run, n_runs, n_sets, stream);
  }
  const auto run_sample = [&] {
    recorded ? recorded->replay(stream) : enqueue_runs(run, n_runs, n_sets, stream);
  };
  run_sample();
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");

  Event begin;
  Event end;
  const kernels::DeviceArray<ClockStamp> stamps(2);
  std::vector<double> samples_s;
  std::vector<double> clocks_mhz;
  Timing timing;
  double total_s = 0.0;
  double best_mhz = 0.0;
  int n_discarded = 0;
  while (total_s < options.max_total_s && !timing.converged) {
    stamp_clock<<<1, 1, 0, stream>>>(stamps.data());
    begin.record(stream);
    run_sample();
    end.record(stream);
    stamp_clock<<<1, 1, 0, stream>>>(stamps.data() + 1);
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    const double elapsed_s = begin.seconds_until(end);
    total_s += elapsed_s;

    const std::vector<ClockStamp> stamped = stamps.to_host();
    const double mhz = clock_mhz(stamped[0], stamped[1]);
    best_mhz = std::max(best_mhz, mhz);
    if (mhz > 0.0) {
      clocks_mhz.push_back(mhz);
      if (mhz < options.least_clock_share * best_mhz) {
        ++n_discarded;
        continue;
      }
    }
    samples_s.push_back(elapsed_s / n_runs);
    timing = summarise(samples_s);
    timing.converged = has_converged(timing, total_s, options);
  }
  if (samples_s.empty()) {
    throw kernels::DeviceError("the device's clock fell with every sample: nothing to report");
  }
  timing.n_discarded = n_discarded;
  timing.runs_per_sample = n_runs;
  if (!clocks_mhz.empty()) {
    std::sort(clocks_mhz.begin(), clocks_mhz.end());
    timing.slowest_clock_mhz = clocks_mhz.front();
    timing.median_clock_mhz = clocks_mhz[clocks_mhz.size() / 2];
  }
  return timing;
}

}  // namespace kvfathom
