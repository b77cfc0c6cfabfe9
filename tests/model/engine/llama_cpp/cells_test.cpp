#include "model/engine/llama_cpp/cells.h"

#include <gtest/gtest.h>

#include "model/error.h"

namespace kvfathom::llama_cpp {
namespace {

CellSettings sequences(std::int64_t n, bool unified = false) {
  CellSettings settings;
  settings.sequences = n;
  settings.kv_unified = unified;
  return settings;
}

// Cells that llama.cpp 0.5.0 logged for these contexts (-c) and sequence counts.
TEST(Cells, MatchLoggedRounding) {
  EXPECT_EQ(cells_of(200000, sequences(1)).n_ctx_seq, 200192);
  EXPECT_EQ(cells_of(1, sequences(1)).n_ctx_seq, 256);
  EXPECT_EQ(cells_of(257, sequences(1)).n_ctx_seq, 512);
  EXPECT_EQ(cells_of(100000, sequences(3)).n_ctx_seq, 33536);
  EXPECT_EQ(cells_of(100000, sequences(3, true)).n_ctx_seq, 100096);
  EXPECT_EQ(cells_of(100000, sequences(3, true)).streams, 1);
  EXPECT_EQ(cells_of(100000, sequences(3)).streams, 3);
}

// gpt-oss-20b, build 6699 (-c 131072): 768 window cells, printed in its log.
TEST(Cells, WindowIsPaddedWindowPlusMicroBatch) {
  const CellSettings one = sequences(1);
  EXPECT_EQ(window_cells(cells_of(131072, one), one, 128), 768);
  const CellSettings four = sequences(4, true);
  EXPECT_EQ(window_cells(cells_of(131072, four), four, 128), 1024);
  EXPECT_EQ(window_cells(cells_of(200, one), one, 1024), 256);  // never beyond the context
}

TEST(Cells, BatchesAreClippedToTheContextAsAsked) {
  const Cells cells = cells_of(100, sequences(1));
  EXPECT_EQ(cells.n_batch, 100);
  EXPECT_EQ(cells.n_ubatch, 100);
  CellSettings whole_batch = sequences(1);
  whole_batch.ubatch_tokens = 0;
  EXPECT_EQ(cells_of(8192, whole_batch).n_ubatch, 2048);
}

TEST(Cells, OlderBuildsRoundAsTheyDid) {
  CellSettings before_streams = sequences(4);
  before_streams.behaviours.streams = false;
  before_streams.behaviours.cells_unpadded = false;
  before_streams.behaviours.cells_256 = false;
  EXPECT_EQ(cells_of(5000, before_streams).streams, 1);
  EXPECT_EQ(cells_of(5000, before_streams).n_ctx_seq, 5120);
  before_streams.flash_attention = false;
  EXPECT_EQ(cells_of(5000, before_streams).n_ctx_seq, 5024);

  CellSettings unpadded = sequences(1);
  unpadded.behaviours.cells_256 = false;
  EXPECT_EQ(cells_of(5000, unpadded).n_ctx_seq, 5000);

  CellSettings no_window = sequences(1);
  no_window.behaviours.window_cells = false;
  EXPECT_EQ(window_cells(cells_of(8192, no_window), no_window, 512), 8192);
}

TEST(Cells, RefusesLessThanATokenForEachSequence) {
  EXPECT_THROW((void)cells_of(1, sequences(3)), InputError);
}

}  // namespace
}  // namespace kvfathom::llama_cpp
