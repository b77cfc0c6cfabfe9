// What it takes to run one kernel on random data: kvfathom-bench and kvfathom-calibrate do the
// rest.
//
// To add kernel x, write calibrate/cases/x_case.cpp (no other file changes):
//
//   class XRun : public PreparedRun {                       // n input sets, ready to run
//    public:
//     XRun(const Request& request, int n_sets) ... {        // Array<T>: random data, where it runs
//     void run(int set, Stream stream) override {           // one call of the kernel
//       request_.place == Place::cpu ? x_cpu(params(set), request_.n_threads)
//                                    : x_launch(params(set), ..., stream);
//     }
//     double worst_error() override { ... }                 // set 0's output against x_reference:
//   };                                                      // largest |error| / bound; <= 1 is
//   right Case make_case(const Request& request) {
//     return Case{.cost = x_cost(...), .bytes_per_set = ..., .prepare =
//     prepare_with<XRun>(request)};
//   }
//   const Registration kX({.name = "x",
//                          .formats = {"bf16", "f16"},      // what --formats chooses from
//                          .tiny = {{"tokens", 64}, ...},   // verified, and run by the smoke test
//                          .shapes = {{{"tokens", 4096}, ...}, ...},
//                          .make_case = make_case});
//
// Where one input set is a struct of arrays, SetsRun below is the class (index_scores_case.cpp).
// Bytes and FLOPs come from model/ops alone. bandwidth_case.cpp is the shortest example,
// decode_attention_case.cpp one with a cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "calibrate/timing/device_timer.h"
#include "kernels/common/device.h"
#include "model/latency/law.h"
#include "model/ops/op_cost.h"

namespace kvfathom::bench {

using kernels::Stream;

enum class Place : std::uint8_t { cpu, cuda };
[[nodiscard]] std::string_view name(Place place);

/// A problem's dimensions by name, in the order in which they are shown.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::pair<std::string, std::int64_t>> dims) : dims_(dims) {}

  /// Throws InputError where there is no such dimension.
  [[nodiscard]] std::int64_t operator[](std::string_view dim) const;
  /// Throws InputError naming what there is.
  void set(std::string_view dim, std::int64_t value);
  [[nodiscard]] int as_int(std::string_view dim) const { return static_cast<int>((*this)[dim]); }
  [[nodiscard]] bool has(std::string_view dim) const;
  [[nodiscard]] std::string text() const;   ///< "tokens:4096/n_heads:32"
  [[nodiscard]] std::string names() const;  ///< "tokens, n_heads"

 private:
  std::vector<std::pair<std::string, std::int64_t>> dims_;
};

/// What one case is asked for.
struct Request {
  Place place = Place::cpu;
  std::string format;
  Shape shape;
  int n_threads = 0;  ///< of the CPU; 0: all
};

/// A kernel with its input sets, all of random data, where it runs.
class PreparedRun {
 public:
  PreparedRun() = default;
  PreparedRun(const PreparedRun&) = delete;
  PreparedRun& operator=(const PreparedRun&) = delete;
  virtual ~PreparedRun() = default;
  /// Runs on input set `set`; on the device it only launches, on `stream`.
  virtual void run(int set, Stream stream) = 0;
  /// Holds what run(0) left to the reference: the largest error over its bound.
  virtual double worst_error() = 0;
  /// What a reader of the figure must know besides; for its label.
  [[nodiscard]] virtual std::string remark() const { return ""; }
};

struct Case {
  OpCost cost;
  double bytes_per_set = 0.0;  ///< input and output of one run: how many sets outgrow the caches
  std::function<std::unique_ptr<PreparedRun>(int n_sets)> prepare;
  Enqueue enqueue = Enqueue::graph;  ///< on the device
  /// What a law is asked about on so many compute units, where a step prices more than the cost
  /// (model/latency/kernel_work.h); null: the cost.
  Work (*work)(const Shape& shape, std::int64_t n_units) = nullptr;
};

template <typename Run>
[[nodiscard]] auto prepare_with(const Request& request) {
  return [request](int n_sets) -> std::unique_ptr<PreparedRun> {
    return std::make_unique<Run>(request, n_sets);
  };
}

struct KernelBench {
  std::string name;
  std::vector<std::string> formats;
  Shape tiny;
  std::vector<Shape> shapes;
  Case (*make_case)(const Request&) = nullptr;
  std::vector<Place> places = {Place::cpu, Place::cuda};
};

/// All kernels, in the order of their names.
[[nodiscard]] std::vector<KernelBench>& all_kernels();

/// The kernel of this name; null: there is none.
[[nodiscard]] const KernelBench* kernel_named(std::string_view name);

/// Enters a kernel; a constant of its file.
struct Registration {
  explicit Registration(KernelBench kernel);
};

/// An array where the case runs: on the host on 4096-byte boundaries, or on the device.
template <typename T>
class Array {
 public:
  Array(Place place, std::span<const T> values) : size_(values.size()) {
    if (place == Place::cuda) {
      device_ = kernels::DeviceArray<T>(values);
    } else {
      host_.reset(static_cast<T*>(::operator new(values.size_bytes() + 1, kPage)));
      std::memcpy(host_.get(), values.data(), values.size_bytes());
    }
  }
  Array(Place place, const std::vector<T>& values) : Array(place, std::span<const T>(values)) {}

  [[nodiscard]] T* data() const { return host_ ? host_.get() : device_.data(); }
  [[nodiscard]] std::vector<T> to_host() const {
    return host_ ? std::vector<T>(host_.get(), host_.get() + size_) : device_.to_host();
  }

 private:
  static constexpr std::align_val_t kPage{4096};
  struct Free {
    void operator()(T* memory) const { ::operator delete(memory, kPage); }
  };
  std::size_t size_ = 0;
  std::unique_ptr<T, Free> host_;
  kernels::DeviceArray<T> device_;
};

/// A kernel whose arrays of one input set are a `Set`: it has kCpu and kLaunch, params(), and, as a
/// twin of set 0 on the host that has not run, worst_error(const Set& ran).
template <typename Set>
class SetsRun : public PreparedRun {
 public:
  SetsRun(const Request& request, int n_sets) : request_(request) {
    for (int set = 0; set < n_sets; ++set) {
      sets_.emplace_back(request.place, request, static_cast<std::uint64_t>(set));
    }
  }
  void run(int set, Stream stream) override {
    request_.place == Place::cpu ? Set::kCpu(sets_[set].params(), request_.n_threads)
                                 : Set::kLaunch(sets_[set].params(), stream);
  }
  double worst_error() override { return Set(Place::cpu, request_, 0).worst_error(sets_[0]); }

 private:
  Request request_;
  std::vector<Set> sets_;
};

// ---- random data; the same on every run ----
/// Words of random bits.
void fill_random(std::span<std::uint32_t> words, std::uint64_t seed);
/// Numbers in (-scale, scale).
[[nodiscard]] std::vector<float> random_floats(std::size_t n,
                                               std::uint64_t seed,
                                               float scale = 1.0F);
/// Their bits as Bf16 or F16.
[[nodiscard]] std::vector<std::uint16_t> random_bf16(std::size_t n,
                                                     std::uint64_t seed,
                                                     float scale = 1.0F);
[[nodiscard]] std::vector<std::uint16_t> random_f16(std::size_t n,
                                                    std::uint64_t seed,
                                                    float scale = 1.0F);
/// Numbers in (0, 1).
[[nodiscard]] std::vector<float> random_fractions(std::size_t n, std::uint64_t seed);

/// Largest |got - want| / bound; infinite where NaN stands.
[[nodiscard]] double worst_ratio(std::span<const float> got,
                                 std::span<const double> want,
                                 std::span<const double> bound);

}  // namespace kvfathom::bench
