#include "bench/kernels/measure.h"

#include <algorithm>
#include <exception>
#include <map>
#include <memory>
#include <string>

#include <benchmark/benchmark.h>

#include "calibrate/cases/rotation.h"
#include "calibrate/timing/device_timer.h"
#include "calibrate/timing/host_timer.h"
#include "kernels/bandwidth/bandwidth.h"

namespace kvfathom::bench {
namespace {

/// A reference does about 10^8 multiply-adds a second.
constexpr double kMostReferenceFlops = 2e8;

bool wrong_result = false;

TimerOptions timer_options(const Options& options) {
  TimerOptions timer;
  timer.max_total_s = options.max_seconds;
  return timer;
}

/// How the case was verified, for its label. Where the reference would take too long, the kernel's
/// tiny shape stands in, once a format and place.
std::string verify(const PlannedCase& planned, const Case& c, PreparedRun& prepared) {
  const bool small =
      c.cost.flops.value() <= kMostReferenceFlops && c.bytes_per_set <= kLeastRotationBytes;
  static std::map<std::string, double> tiny_errors;
  double error = 0.0;
  if (small) {
    error = error_of(prepared, planned.request.place);
  } else {
    Request tiny = planned.request;
    tiny.shape = planned.kernel->tiny;
    const std::string key = PlannedCase{planned.kernel, tiny}.name();
    if (!tiny_errors.contains(key)) {
      tiny_errors[key] =
          error_of(*planned.kernel->make_case(tiny).prepare(1), planned.request.place);
    }
    error = tiny_errors[key];
  }
  if (!(error <= 1.0)) {
    wrong_result = true;
    return "";
  }
  return small ? "verified" : "verified at the tiny shape";
}

/// A buffer that nothing keeps in a cache, to read beside each CPU case.
class CpuYardstick {
 public:
  explicit CpuYardstick(const Options& options)
      : words_(static_cast<std::size_t>(rotation_bytes(Place::cpu, options.rotation_bytes) / 64) *
               16),
        n_threads_(options.n_threads) {
    fill_random(words_, 2);
  }
  [[nodiscard]] double bytes() const { return 4.0 * static_cast<double>(words_.size()); }
  void run() const {
    benchmark::DoNotOptimize(
        kernels::bandwidth_cpu({.op = kernels::BandwidthOp::read,
                                .n_words = static_cast<std::int64_t>(words_.size()),
                                .source = words_.data()},
                               n_threads_));
  }

 private:
  std::vector<std::uint32_t> words_;
  int n_threads_;
};

struct Measured {
  Timing timing;
  double read_bandwidth = 0.0;
  double share = 0.0;  ///< of it
  double share_low = 0.0;
  double share_high = 0.0;
};

Measured measure_on_cpu(PreparedRun& prepared, const Case& c, int n_sets, const Options& options) {
  const double bytes = (c.cost.read + c.cost.written).value();
  static const CpuYardstick yardstick(options);
  const PairedTiming paired = time_beside([&](int set) { prepared.run(set, nullptr); },
                                          n_sets,
                                          [&](int) { yardstick.run(); },
                                          1,
                                          timer_options(options));
  const double relative = bytes / yardstick.bytes();
  return Measured{.timing = paired.run,
                  .read_bandwidth = yardstick.bytes() / paired.yardstick.median_s,
                  .share = relative * paired.ratio,
                  .share_low = relative * paired.ratio_low,
                  .share_high = relative * paired.ratio_high};
}

Measured measure_on_device(
    PreparedRun& prepared, const Case& c, int n_sets, double device_read, const Options& options) {
  const double bytes = (c.cost.read + c.cost.written).value();
  const Timing timing = time_on_device([&](int set, Stream stream) { prepared.run(set, stream); },
                                       n_sets,
                                       timer_options(options),
                                       c.enqueue);
  return Measured{.timing = timing,
                  .read_bandwidth = device_read,
                  .share = bytes / timing.median_s / device_read,
                  .share_low = bytes / timing.high_s / device_read,
                  .share_high = bytes / timing.low_s / device_read};
}

void report(benchmark::State& state, const OpCost& cost, int n_sets, const Measured& measured) {
  using benchmark::Counter;
  const Timing& timing = measured.timing;
  const double bytes = (cost.read + cost.written).value();
  state.counters["read_bytes"] = Counter(cost.read.value());
  state.counters["written_bytes"] = Counter(cost.written.value());
  state.counters["flops"] = Counter(cost.flops.value());
  state.counters["bytes_per_s"] = Counter(bytes / timing.median_s);
  state.counters["flops_per_s"] = Counter(cost.flops.value() / timing.median_s);
  state.counters["read_ceiling_bytes_per_s"] = Counter(measured.read_bandwidth);
  state.counters["share"] = Counter(measured.share);
  state.counters["share_low"] = Counter(measured.share_low);
  state.counters["share_high"] = Counter(measured.share_high);
  state.counters["interval"] = Counter(timing.interval);
  state.counters["samples"] = Counter(timing.n_samples);
  state.counters["runs_per_sample"] = Counter(timing.runs_per_sample);
  state.counters["input_sets"] = Counter(n_sets);
  state.counters["converged"] = Counter(timing.converged ? 1 : 0);
  if (timing.median_clock_mhz > 0.0) {
    state.counters["clock_mhz"] = Counter(timing.median_clock_mhz);
    state.counters["discarded"] = Counter(timing.n_discarded);
  }
}

void run_case(benchmark::State& state,
              const PlannedCase& planned,
              const Options& options,
              double device_read) {
  Measured measured;
  try {
    const Place place = planned.request.place;
    const Case c = planned.kernel->make_case(planned.request);
    const int n_sets = sets_for(c, rotation_bytes(place, options.rotation_bytes));
    const std::unique_ptr<PreparedRun> prepared = c.prepare(n_sets);
    const std::string verified = verify(planned, c, *prepared);
    if (verified.empty()) {
      state.SkipWithError("the result is wrong: it is outside the reference's bound");
      return;
    }
    measured = place == Place::cpu ? measure_on_cpu(*prepared, c, n_sets, options)
                                   : measure_on_device(*prepared, c, n_sets, device_read, options);
    const std::string remark = prepared->remark();
    state.SetLabel(remark.empty() ? verified : verified + "; " + remark);
    report(state, c.cost, n_sets, measured);
  } catch (const std::exception& error) {
    state.SkipWithError(error.what());
    return;
  }
  for (auto _ : state) {
    state.SetIterationTime(measured.timing.median_s);
  }
}

}  // namespace

double device_read_bandwidth(const Options& options) {
  const kernels::DeviceInfo& device = kernels::device();
  const double bytes =
      std::max(rotation_bytes(Place::cuda, options.rotation_bytes), 1024.0 * 1024 * 1024);
  std::vector<std::uint32_t> words(static_cast<std::size_t>(bytes / 16) * 4);
  fill_random(words, 3);
  const kernels::DeviceArray<std::uint32_t> source(words);
  const kernels::BandwidthParams params{.op = kernels::BandwidthOp::read,
                                        .n_words = static_cast<std::int64_t>(words.size()),
                                        .source = source.data()};
  const int n_blocks = kernels::bandwidth_blocks(params, device);
  const kernels::DeviceArray<std::uint32_t> sums(n_blocks);
  const Timing timing = time_on_device(
      [&](int, Stream stream) { kernels::bandwidth_launch(params, n_blocks, sums.data(), stream); },
      1,
      timer_options(options));
  return 4.0 * static_cast<double>(words.size()) / timing.median_s;
}

void register_cases(const std::vector<PlannedCase>& cases,
                    const Options& options,
                    double device_read) {
  for (const PlannedCase& planned : cases) {
    benchmark::RegisterBenchmark(planned.name().c_str(),
                                 [&planned, &options, device_read](benchmark::State& state) {
                                   run_case(state, planned, options, device_read);
                                 })
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
}

bool any_wrong() {
  return wrong_result;
}

}  // namespace kvfathom::bench
