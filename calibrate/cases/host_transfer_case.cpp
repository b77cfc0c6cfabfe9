// Between the host's memory and the device's: copies and the gathering kernel, alone and beside a
// kernel that keeps the device's memory busy. On the CPU: copies within the host's memory.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <optional>

#include "calibrate/cases/case.h"
#include "kernels/bandwidth/bandwidth.h"
#include "kernels/host_transfer/host_transfer.h"
#include "model/ops/bandwidth.h"
#include "model/ops/host_transfer.h"

namespace kvfathom::bench {
namespace {

using kernels::BandwidthParams;
using kernels::HostTransferParams;
using kernels::TransferPiece;

/// What runs beside a transfer reads this much of the device's memory for each byte that crosses
/// the bus: about as long as the slower of the two takes.
constexpr std::int64_t kReadBeside = 64;
constexpr std::int64_t kReadOnce = std::int64_t{256} << 20;

bool has(const std::string& format, std::string_view word) {
  return format.find(word) != std::string::npos;
}

std::int64_t reads_beside(const Request& request) {
  const std::int64_t bytes = request.shape["bytes_per_piece"] * request.shape["pieces"];
  return has(request.format, "beside") ? (bytes * kReadBeside + kReadOnce - 1) / kReadOnce : 0;
}

/// Equal pieces that change their order on the way, as pages do.
std::vector<TransferPiece> reversed_pieces(std::int64_t n_pieces, std::int64_t bytes) {
  std::vector<TransferPiece> pieces;
  for (std::int64_t i = 0; i < n_pieces; ++i) {
    pieces.push_back(TransferPiece{i * bytes, (n_pieces - 1 - i) * bytes, bytes});
  }
  return pieces;
}

class HostTransferRun : public PreparedRun {
 public:
  HostTransferRun(const Request& request, int n_sets)
      : request_(request),
        words_(request.shape["bytes_per_piece"] * request.shape["pieces"] / 4),
        pieces_(reversed_pieces(request.shape["pieces"], request.shape["bytes_per_piece"])) {
    fill_random(words_, 1);
    const bool on_device = request.place == Place::cuda;
    const bool to_device = has(request.format, "to-device");
    for (int set = 0; set < n_sets; ++set) {
      if (on_device) {
        pinned_.emplace_back(words_.size() * 4);
        std::memcpy(pinned_.back().data(), words_.data(), words_.size() * 4);
      } else {
        host_.emplace_back(Place::cpu, words_);
      }
      there_.emplace_back(request.place, words_);
      std::byte* here = on_device ? pinned_.back().data() : as_bytes(host_.back().data());
      std::byte* there = as_bytes(there_.back().data());
      const bool outward = to_device || !on_device;
      sources_.push_back(outward ? here : there);
      destinations_.push_back(outward ? there : here);
    }
    if (on_device) {
      prepare_device();
    }
  }

  void run(int set, Stream stream) override {
    if (request_.place == Place::cpu) {
      kernels::host_transfer_cpu(params(set, pieces_), request_.n_threads);
      return;
    }
    if (!beside_) {
      transfer(set, stream);
      return;
    }
    kernels::wait_for(beside_->get(), stream);
    for (std::int64_t i = 0; i < reads_beside(request_); ++i) {
      kernels::bandwidth_launch(read_, n_read_blocks_, partial_sums_.data(), stream);
    }
    transfer(set, beside_->get());
    kernels::wait_for(stream, beside_->get());
  }

  /// Every byte must be right: any error counts as infinite.
  double worst_error() override {
    const std::size_t n_bytes = words_.size() * 4;
    std::vector<std::byte> want(n_bytes);
    kernels::host_transfer_reference({.source = as_bytes(words_.data()),
                                      .destination = want.data(),
                                      .pieces = pieces_.data(),
                                      .n_pieces = static_cast<int>(pieces_.size())});
    std::vector<std::byte> got(n_bytes);
    if (request_.place == Place::cuda && has(request_.format, "to-device")) {
      kernels::copy_from_device(got.data(), destinations_[0], n_bytes);
    } else {
      std::memcpy(got.data(), destinations_[0], n_bytes);
    }
    return got == want ? 0.0 : std::numeric_limits<double>::infinity();
  }

 private:
  static std::byte* as_bytes(std::uint32_t* words) { return reinterpret_cast<std::byte*>(words); }

  void prepare_device() {
    cut_ = kernels::cut_for_gather(pieces_);
    device_cut_ = kernels::DeviceArray<TransferPiece>(cut_);
    n_gather_blocks_ = kernels::host_transfer_gather_blocks(params(0, cut_), kernels::device());
    if (has(request_.format, "beside")) {
      beside_.emplace();
      read_memory_ = kernels::DeviceArray<std::uint32_t>(kReadOnce / 4);
      read_ = BandwidthParams{.op = kernels::BandwidthOp::read,
                              .n_words = kReadOnce / 4,
                              .source = read_memory_.data()};
      n_read_blocks_ = kernels::bandwidth_blocks(read_, kernels::device());
      partial_sums_ = kernels::DeviceArray<std::uint32_t>(n_read_blocks_);
    }
  }
  [[nodiscard]] HostTransferParams params(int set, const std::vector<TransferPiece>& pieces) const {
    return HostTransferParams{.source = sources_[set],
                              .destination = destinations_[set],
                              .pieces = pieces.data(),
                              .n_pieces = static_cast<int>(pieces.size())};
  }
  void transfer(int set, Stream stream) {
    if (has(request_.format, "gather")) {
      kernels::host_transfer_gather_launch(
          params(set, cut_), device_cut_.data(), n_gather_blocks_, stream);
    } else {
      kernels::host_transfer_copies(params(set, pieces_), stream);
    }
  }

  Request request_;
  std::vector<std::uint32_t> words_;
  std::vector<TransferPiece> pieces_, cut_;
  std::vector<Array<std::uint32_t>> host_, there_;
  std::vector<kernels::PinnedArray<std::byte>> pinned_;
  std::vector<const std::byte*> sources_;
  std::vector<std::byte*> destinations_;
  kernels::DeviceArray<TransferPiece> device_cut_;
  int n_gather_blocks_ = 0;
  std::optional<kernels::ScopedStream> beside_;
  kernels::DeviceArray<std::uint32_t> read_memory_, partial_sums_;
  BandwidthParams read_;
  int n_read_blocks_ = 0;
};

Case make_case(const Request& request) {
  const Bytes piece(static_cast<double>(request.shape["bytes_per_piece"] & ~std::int64_t{15}));
  Request whole = request;
  whole.shape.set("bytes_per_piece", static_cast<std::int64_t>(piece.value()));
  const OpCost moved = host_transfer_cost({.bytes_per_piece = piece,
                                           .n_pieces = request.shape.as_int("pieces"),
                                           .gathered = has(request.format, "gather")});
  const Bytes read_beside = static_cast<double>(reads_beside(whole) * kReadOnce) * Bytes(1);
  return Case{.cost = read_beside.value() > 0 ? moved + read_cost(read_beside) : moved,
              .bytes_per_set = (moved.read + moved.written).value(),
              .prepare = prepare_with<HostTransferRun>(whole)};
}

const Shape kTiny = {{"bytes_per_piece", 4096}, {"pieces", 16}};
const std::vector<Shape> kShapes = {
    {{"bytes_per_piece", 4096}, {"pieces", 1}},
    {{"bytes_per_piece", 4096}, {"pieces", 4096}},
    {{"bytes_per_piece", 65536}, {"pieces", 1024}},
    {{"bytes_per_piece", 1 << 20}, {"pieces", 64}},
    {{"bytes_per_piece", 1 << 30}, {"pieces", 1}},
};

const Registration kHostTransfer({.name = "host_transfer",
                                  .formats = {"copies-to-device",
                                              "copies-to-host",
                                              "gather-to-device",
                                              "gather-to-host",
                                              "copies-to-device-beside-read",
                                              "gather-to-device-beside-read"},
                                  .tiny = kTiny,
                                  .shapes = kShapes,
                                  .make_case = make_case,
                                  .places = {Place::cuda}});
const Registration kHostCopy({.name = "host_copy",
                              .formats = {"threads"},
                              .tiny = kTiny,
                              .shapes = {kShapes[1], kShapes[3]},
                              .make_case = make_case,
                              .places = {Place::cpu}});

}  // namespace
}  // namespace kvfathom::bench
