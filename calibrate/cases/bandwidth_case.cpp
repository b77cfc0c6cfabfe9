// The ceilings themselves: read, write, copy, fill.
#include <algorithm>
#include <limits>
#include <numeric>

#include "calibrate/cases/case.h"
#include "kernels/bandwidth/bandwidth.h"
#include "model/ops/bandwidth.h"

namespace kvfathom::bench {
namespace {

using kernels::BandwidthOp;
using kernels::BandwidthParams;

BandwidthOp op_named(const std::string& format) {
  return *std::find_if(std::begin(kernels::kAllBandwidthOps),
                       std::end(kernels::kAllBandwidthOps),
                       [&](BandwidthOp op) { return kernels::name(op) == format; });
}

class BandwidthRun : public PreparedRun {
 public:
  BandwidthRun(const Request& request, int n_sets)
      : request_(request), op_(op_named(request.format)), words_(request.shape["bytes"] / 16 * 4) {
    fill_random(words_, 1);
    for (int set = 0; set < n_sets; ++set) {
      if (op_ == BandwidthOp::read || op_ == BandwidthOp::copy) {
        sources_.emplace_back(request.place, words_);
      }
      if (op_ != BandwidthOp::read) {
        destinations_.emplace_back(request.place, words_);
      }
    }
    if (request.place == Place::cuda) {
      n_blocks_ = kernels::bandwidth_blocks(params(0), kernels::device());
      partial_sums_ = kernels::DeviceArray<std::uint32_t>(n_blocks_);
    }
  }

  void run(int set, Stream stream) override {
    if (request_.place == Place::cpu) {
      checksum_ = kernels::bandwidth_cpu(params(set), request_.n_threads);
    } else {
      kernels::bandwidth_launch(params(set), n_blocks_, partial_sums_.data(), stream);
    }
  }

  /// Every word must be right: any error counts as infinite.
  double worst_error() override {
    std::vector<std::uint32_t> source = words_;
    std::vector<std::uint32_t> want = words_;
    const std::uint32_t checksum = kernels::bandwidth_reference(BandwidthParams{
        op_, static_cast<std::int64_t>(want.size()), source.data(), want.data(), kValue});
    const bool right =
        op_ == BandwidthOp::read ? sum() == checksum : destinations_[0].to_host() == want;
    return right ? 0.0 : std::numeric_limits<double>::infinity();
  }

 private:
  static constexpr std::uint32_t kValue = 0x9e3779b9U;

  [[nodiscard]] BandwidthParams params(int set) const {
    return BandwidthParams{
        .op = op_,
        .n_words = static_cast<std::int64_t>(words_.size()),
        .source = sources_.empty() ? nullptr : sources_[set].data(),
        .destination = destinations_.empty() ? nullptr : destinations_[set].data(),
        .value = kValue};
  }
  [[nodiscard]] std::uint32_t sum() const {
    if (request_.place == Place::cpu) {
      return checksum_;
    }
    const std::vector<std::uint32_t> sums = partial_sums_.to_host();
    return std::accumulate(sums.begin(), sums.end(), std::uint32_t{0});
  }

  Request request_;
  BandwidthOp op_;
  std::vector<std::uint32_t> words_;
  std::vector<Array<std::uint32_t>> sources_, destinations_;
  int n_blocks_ = 0;
  kernels::DeviceArray<std::uint32_t> partial_sums_;
  std::uint32_t checksum_ = 0;
};

Case make_case(const Request& request) {
  const Bytes size(static_cast<double>(request.shape["bytes"] & ~std::int64_t{15}));
  const BandwidthOp op = op_named(request.format);
  const OpCost cost = op == BandwidthOp::read   ? read_cost(size)
                      : op == BandwidthOp::copy ? copy_cost(size)
                                                : write_cost(size);
  return Case{.cost = cost,
              .bytes_per_set = (cost.read + cost.written).value(),
              .prepare = prepare_with<BandwidthRun>(request)};
}

const Registration kBandwidth({.name = "bandwidth",
                               .formats = {"read", "write", "copy", "fill"},
                               .tiny = {{"bytes", 1 << 20}},
                               .shapes = {{{"bytes", 1 << 24}}, {{"bytes", 1 << 28}}},
                               .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
