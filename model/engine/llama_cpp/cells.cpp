#include "model/engine/llama_cpp/cells.h"

#include <algorithm>
#include <string>

#include "model/error.h"
#include "model/rounding.h"

namespace kvfathom::llama_cpp {
namespace {

constexpr std::int64_t kCellPad = 256;

/// What cells were padded to before PR 16812: FlashAttention kernels wanted whole tiles of 256.
std::int64_t old_padding(const CellSettings& s) {
  return s.flash_attention ? kCellPad : 32;
}

/// Padding of the window cache alone: by PR 17046, by none between it and PR 16812, as all cells
/// before.
std::int64_t window_padding(const CellSettings& s) {
  if (s.behaviours.cells_256) {
    return kCellPad;
  }
  return s.behaviours.cells_unpadded ? 1 : old_padding(s);
}

/// Cells of one stream, for builds from PR 14363 (streams) on.
std::int64_t stream_cells(std::int64_t total, const CellSettings& s) {
  const std::int64_t n = s.kv_unified ? 1 : s.sequences;
  if (s.behaviours.cells_256) {
    return round_up(round_up(total, kCellPad) / n, kCellPad);
  }
  if (s.behaviours.cells_unpadded) {
    return total / n;
  }
  return round_up(divide_up(total, n), old_padding(s));
}

}  // namespace

Cells cells_of(std::int64_t total_context_tokens, const CellSettings& s) {
  if (total_context_tokens < s.sequences) {
    throw InputError("--context",
                     std::to_string(total_context_tokens) + " tokens in all for " +
                         std::to_string(s.sequences) + " sequences",
                     "llama.cpp needs at least one token for each");
  }
  Cells cells;
  cells.n_batch = std::min(total_context_tokens, s.batch_tokens);
  cells.n_ubatch = std::min(cells.n_batch, s.ubatch_tokens == 0 ? s.batch_tokens : s.ubatch_tokens);
  if (s.behaviours.streams) {
    cells.streams = s.kv_unified ? 1 : s.sequences;
    cells.n_ctx_seq = stream_cells(total_context_tokens, s);
  } else {
    cells.n_ctx_seq = round_up(total_context_tokens, old_padding(s));
  }
  return cells;
}

std::int64_t window_cells(const Cells& cells, const CellSettings& s, std::int64_t window_tokens) {
  if (s.swa_full || !s.behaviours.window_cells) {
    return cells.n_ctx_seq;
  }
  const bool shared_stream = s.kv_unified || !s.behaviours.streams;
  const std::int64_t slack = s.behaviours.window_cells_by_ubatch ? cells.n_ubatch : cells.n_batch;
  const std::int64_t wanted = window_tokens * (shared_stream ? s.sequences : 1) + slack;
  // Today the smaller of the two is padded, so a short context is not exceeded by more than a pad;
  // before PR 17046 the padded window was cut to the context.
  if (s.behaviours.cells_256) {
    return round_up(std::min(cells.n_ctx_seq, wanted), window_padding(s));
  }
  return std::min(cells.n_ctx_seq, round_up(wanted, window_padding(s)));
}

}  // namespace kvfathom::llama_cpp
