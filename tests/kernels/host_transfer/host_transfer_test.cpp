// Transfers between host and device: every byte exactly, and nothing beside the pieces.
#include "kernels/host_transfer/host_transfer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/bandwidth/bandwidth.h"
#include "kernels/common/error.h"
#include "kernels/simt/emulator_control.h"
#include "model/ops/host_transfer.h"
#include "tests/kernels/support/compare.h"
#include "tests/kernels/support/random_data.h"
#include "tests/kernels/support/schedules.h"
#include "tests/kernels/support/traffic.h"

namespace kvfathom::kernels {
namespace {

using Buffer = std::vector<std::byte>;

constexpr std::byte kPoison{0xa5};

/// Pieces in random order of both sides, with gaps, and buffers that hold them.
struct Plan {
  std::vector<TransferPiece> pieces;
  std::int64_t source_bytes = 0;
  std::int64_t destination_bytes = 0;
};

/// Pieces of the sizes given; everything a multiple of `alignment`.
Plan plan(std::vector<std::int64_t> sizes, std::int64_t alignment) {
  RandomData random(5);
  Plan p;
  for (const std::int64_t bytes : sizes) {
    p.source_bytes += alignment * random.integer(0, 3);
    p.pieces.push_back(TransferPiece{.source_offset = p.source_bytes, .bytes = bytes});
    p.source_bytes += bytes;
  }
  std::shuffle(p.pieces.begin(), p.pieces.end(), random.engine());
  for (TransferPiece& piece : p.pieces) {
    p.destination_bytes += alignment * random.integer(0, 3);
    piece.destination_offset = p.destination_bytes;
    p.destination_bytes += piece.bytes;
  }
  std::shuffle(p.pieces.begin(), p.pieces.end(), random.engine());
  p.source_bytes += alignment;
  p.destination_bytes += alignment;
  return p;
}

Plan vectors_plan() {
  return plan({16, 4096, 0, 48, 2048, 2064, 16384, 16400, 70000 / 16 * 16}, 16);
}
Plan bytes_plan() {
  return plan({0, 1, 2, 15, 16, 17, 63, 4095, 4096, 4097, 0, 100000, 1}, 1);
}

Buffer random_bytes(std::int64_t n) {
  RandomData random(9);
  Buffer bytes(n);
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(random.engine()());
  }
  return bytes;
}

HostTransferParams params_of(const Plan& p, const std::byte* source, std::byte* destination) {
  return HostTransferParams{.source = source,
                            .destination = destination,
                            .pieces = p.pieces.data(),
                            .n_pieces = static_cast<int>(p.pieces.size())};
}

/// What `run` leaves in a poisoned destination on the host.
Buffer on_host(const Plan& p, const std::function<void(const HostTransferParams&)>& run) {
  const Buffer source = random_bytes(p.source_bytes);
  Buffer destination(p.destination_bytes, kPoison);
  run(params_of(p, source.data(), destination.data()));
  return destination;
}
Buffer wanted(const Plan& p) {
  return on_host(p, host_transfer_reference);
}

enum class Way : std::uint8_t { copies, gather };
enum class Direction : std::uint8_t { to_device, to_host };

void enqueue(Way way, const Plan& p, const HostTransferParams& params, Stream stream) {
  if (way == Way::copies) {
    host_transfer_copies(params, stream);
    return;
  }
  Plan cut = p;
  cut.pieces = cut_for_gather(p.pieces);
  const HostTransferParams cut_params = params_of(cut, params.source, params.destination);
  const DeviceArray<TransferPiece> device_pieces(cut.pieces);
  host_transfer_gather_launch(
      cut_params, device_pieces.data(), host_transfer_gather_blocks(cut_params, device()), stream);
  synchronize(stream);  // before the pieces go
}

/// What a transfer between pinned and device memory leaves in a poisoned destination. `beside` is
/// launched just before it.
Buffer on_device(
    Way way,
    Direction direction,
    const Plan& p,
    Stream stream = nullptr,
    const std::function<void()>& beside = [] {}) {
  const Buffer source = random_bytes(p.source_bytes);
  const Buffer poison(p.destination_bytes, kPoison);
  Buffer result(p.destination_bytes);
  if (direction == Direction::to_device) {
    const PinnedArray<std::byte> from(p.source_bytes);
    std::memcpy(from.data(), source.data(), source.size());
    const DeviceArray<std::byte> to(poison);
    wait_for(stream, nullptr);
    beside();
    enqueue(way, p, params_of(p, from.data(), to.data()), stream);
    synchronize(stream);
    return to.to_host();
  }
  const DeviceArray<std::byte> from(source);
  const PinnedArray<std::byte> to(p.destination_bytes);
  std::memcpy(to.data(), poison.data(), poison.size());
  wait_for(stream, nullptr);
  beside();
  enqueue(way, p, params_of(p, from.data(), to.data()), stream);
  synchronize(stream);
  return {to.data(), to.data() + to.size()};
}

TEST(HostTransfer, ReferenceMovesThePiecesAndNothingElse) {
  const Buffer source = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  Buffer destination(4, kPoison);
  const Plan p{.pieces = {{.source_offset = 2, .destination_offset = 0, .bytes = 1},
                          {.source_offset = 0, .destination_offset = 2, .bytes = 2}}};
  host_transfer_reference(params_of(p, source.data(), destination.data()));
  EXPECT_EQ(destination, (Buffer{std::byte{3}, kPoison, std::byte{1}, std::byte{2}}));
  EXPECT_EQ(transfer_bytes(params_of(p, nullptr, nullptr)), 3);
}

TEST(HostTransfer, CpuEqualsTheReference) {
  for (const Plan& p : {vectors_plan(), bytes_plan(), plan({}, 1), plan({0, 0}, 1), plan({1}, 1)}) {
    for (const int n_threads : {1, 2, 3, 7}) {
      EXPECT_EQ(
          on_host(p,
                  [&](const HostTransferParams& params) { host_transfer_cpu(params, n_threads); }),
          wanted(p))
          << p.pieces.size() << " pieces, " << n_threads << " threads";
    }
  }
}

TEST(HostTransfer, CopiesEqualTheReferenceBothWays) {
  SKIP_WITHOUT_DEVICE();
  for (const Plan& p : {vectors_plan(), bytes_plan(), plan({}, 1)}) {
    EXPECT_EQ(on_device(Way::copies, Direction::to_device, p), wanted(p));
    EXPECT_EQ(on_device(Way::copies, Direction::to_host, p), wanted(p));
  }
}

TEST(HostTransfer, GatherEqualsTheReferenceBothWays) {
  SKIP_WITHOUT_DEVICE();
  const std::vector<std::int64_t> many(300, 272);
  for (const Plan& p : {vectors_plan(), plan({}, 16), plan({16}, 16), plan(many, 16)}) {
    EXPECT_EQ(on_device(Way::gather, Direction::to_device, p), wanted(p)) << p.pieces.size();
    EXPECT_EQ(on_device(Way::gather, Direction::to_host, p), wanted(p)) << p.pieces.size();
  }
}

TEST(HostTransfer, AWrongPieceIsNoticed) {
  SKIP_WITHOUT_DEVICE();
  const Plan p = vectors_plan();
  const auto longest = std::max_element(
      p.pieces.begin(), p.pieces.end(), [](const TransferPiece& a, const TransferPiece& b) {
        return a.bytes < b.bytes;
      });
  const auto mutant = [&](std::int64_t TransferPiece::*field, std::int64_t change) {
    Plan wrong = p;
    wrong.pieces[longest - p.pieces.begin()].*field += change;
    return wrong;
  };
  for (const Plan& wrong : {mutant(&TransferPiece::bytes, -16),
                            mutant(&TransferPiece::source_offset, 16),
                            mutant(&TransferPiece::destination_offset, 16)}) {
    EXPECT_NE(on_device(Way::gather, Direction::to_device, wrong), wanted(p));
    EXPECT_NE(on_device(Way::copies, Direction::to_device, wrong), wanted(p));
    EXPECT_NE(on_host(wrong, [](const HostTransferParams& params) { host_transfer_cpu(params); }),
              wanted(p));
  }
}

TEST(HostTransfer, RunsBesideAKernel) {
  SKIP_WITHOUT_DEVICE();
  const Plan p = vectors_plan();
  const ScopedStream own;
  const std::int64_t n_words = 1 << 16;
  const DeviceArray<std::uint32_t> words(static_cast<std::size_t>(n_words));
  const BandwidthParams fill{
      .op = BandwidthOp::fill, .n_words = n_words, .destination = words.data(), .value = 7};
  for (const Way way : {Way::copies, Way::gather}) {
    const auto launch_fill = [&] {
      bandwidth_launch(fill, bandwidth_blocks(fill, device()), nullptr, nullptr);
    };
    EXPECT_EQ(on_device(way, Direction::to_device, p, own.get(), launch_fill), wanted(p));
    synchronize();
    EXPECT_EQ(words.to_host(), std::vector<std::uint32_t>(n_words, 7));
  }
}

TEST(HostTransfer, MovesWhatTheFormulaSays) {
  SKIP_WITHOUT_DEVICE();
  for (const std::int64_t bytes_per_piece : {64, 4096, 20480}) {
    const int n_pieces = 7;
    static_cast<void>(simt::take_traffic());
    static_cast<void>(on_device(Way::gather,
                                Direction::to_device,
                                plan(std::vector<std::int64_t>(n_pieces, bytes_per_piece), 16)));
    const OpCost cost =
        host_transfer_cost({.bytes_per_piece = Bytes(static_cast<double>(bytes_per_piece)),
                            .n_pieces = n_pieces,
                            .gathered = true});
    EXPECT_TRUE(moved_bytes_of(cost));
    EXPECT_EQ(cost.launches, 1);
  }
}

TEST(HostTransfer, FormulaCountsACallAPiece) {
  const OpCost cost = host_transfer_cost({.bytes_per_piece = Bytes(4096), .n_pieces = 12});
  EXPECT_EQ(cost.launches, 12);
  EXPECT_EQ(cost.read.value(), 12 * 4096);
}

TEST(HostTransfer, CutPiecesCoverTheSameBytes) {
  const std::vector<TransferPiece> pieces = {
      {.source_offset = 32, .destination_offset = 0, .bytes = 40000},
      {.source_offset = 0, .destination_offset = 50000, .bytes = 0},
      {.source_offset = 50000, .destination_offset = 60000, .bytes = 16}};
  const std::vector<TransferPiece> cut = cut_for_gather(pieces);
  ASSERT_EQ(cut.size(), 4U);
  EXPECT_EQ(cut[1].source_offset - cut[0].source_offset, cut[0].bytes);
  EXPECT_EQ(cut[2].destination_offset + cut[2].bytes, 40000);
  EXPECT_EQ(cut[0].bytes + cut[1].bytes + cut[2].bytes, 40000);
  EXPECT_EQ(cut[3].destination_offset, 60000);
}

TEST(HostTransfer, BlocksSuitTheBusNotTheDevice) {
  const DeviceInfo large{.name = "", .n_multiprocessors = 132};
  const DeviceInfo small{.name = "", .n_multiprocessors = 8};
  EXPECT_EQ(host_transfer_gather_blocks({.n_pieces = 1}, large), 1);
  EXPECT_EQ(host_transfer_gather_blocks({.n_pieces = 9}, large), 2);
  EXPECT_EQ(host_transfer_gather_blocks({.n_pieces = 100000}, large), 16);
  EXPECT_EQ(host_transfer_gather_blocks({.n_pieces = 100000}, small), 8);
}

TEST(HostTransfer, RefusesWhatItCannotMove) {
  SKIP_WITHOUT_DEVICE();
  Buffer buffer(64);
  const auto refused = [&](TransferPiece piece) {
    const HostTransferParams params = params_of({.pieces = {piece}}, buffer.data(), buffer.data());
    host_transfer_gather_launch(params, nullptr, 1, nullptr);
  };
  EXPECT_THROW(refused({.bytes = 8}), UnsupportedShape);
  EXPECT_THROW(refused({.source_offset = 8, .bytes = 16}), UnsupportedShape);
  EXPECT_THROW(refused({.destination_offset = 8, .bytes = 16}), UnsupportedShape);
  const Plan negative{.pieces = {{.bytes = -16}}};
  EXPECT_THROW(host_transfer_cpu(params_of(negative, buffer.data(), buffer.data())),
               UnsupportedShape);
  EXPECT_THROW(host_transfer_copies(params_of(negative, buffer.data(), buffer.data()), nullptr),
               UnsupportedShape);
}

TEST(HostTransferSmall, EverySchedule) {
  SKIP_WITHOUT_DEVICE();
  const Plan p = plan({16, 2064, 48, 4096, 0, 17408}, 16);
  under_every_schedule([&] {
    EXPECT_EQ(on_device(Way::gather, Direction::to_device, p), wanted(p));
    EXPECT_EQ(on_device(Way::gather, Direction::to_host, p), wanted(p));
  });
}

}  // namespace
}  // namespace kvfathom::kernels
