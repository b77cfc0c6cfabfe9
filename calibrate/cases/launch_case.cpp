// The gap between empty kernels, of a graph and of a stream that the host fills as it goes, and on
// the CPU between empty parallel regions: time per run over `launches`.
#include <limits>
#include <utility>

#include "calibrate/cases/case.h"
#include "kernels/launch/launch.h"
#include "model/ops/launch.h"

namespace kvfathom::bench {
namespace {

class LaunchRun : public PreparedRun {
 public:
  LaunchRun(Request request, int /*n_sets*/) : request_(std::move(request)) {}

  void run(int /*set*/, Stream stream) override { launch(nullptr, stream); }

  /// As many as were asked for, no more and no fewer.
  double worst_error() override {
    const Array<std::uint32_t> counter(request_.place, std::vector<std::uint32_t>(1, 0));
    launch(counter.data(), nullptr);
    if (request_.place == Place::cuda) {
      kernels::synchronize();
    }
    const bool right =
        counter.to_host()[0] == static_cast<std::uint32_t>(request_.shape["launches"]);
    return right ? 0.0 : std::numeric_limits<double>::infinity();
  }

 private:
  void launch(std::uint32_t* counter, Stream stream) const {
    kernels::EmptyLaunchParams params;
    params.n_launches = request_.shape.as_int("launches");
    params.counter = counter;
    request_.place == Place::cpu ? kernels::empty_launch_cpu(params, request_.n_threads)
                                 : kernels::empty_launch_launch(params, stream);
  }

  Request request_;
};

Case make_case(const Request& request) {
  return Case{.cost = empty_launch_cost(request.shape.as_int("launches")),
              .prepare = prepare_with<LaunchRun>(request),
              .enqueue = request.format == "stream" ? Enqueue::stream : Enqueue::graph};
}

const Registration kLaunch({.name = "launch",
                            .formats = {"graph", "stream"},
                            .tiny = {{"launches", 10}},
                            .shapes = {{{"launches", 100}}},
                            .make_case = make_case,
                            .places = {Place::cuda}});
const Registration kParallelRegion({.name = "parallel_region",
                                    .formats = {"empty"},
                                    .tiny = {{"launches", 10}},
                                    .shapes = {{{"launches", 100}}},
                                    .make_case = make_case,
                                    .places = {Place::cpu}});

}  // namespace
}  // namespace kvfathom::bench
