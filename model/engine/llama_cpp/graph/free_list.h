// ggml's best-fit allocator over offsets (ggml-alloc.c, one chunk): free blocks by address, the
// last of which has no end.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace kvfathom::llama_cpp {

class FreeList {
 public:
  /// ggml stops at 256 free blocks; no pass of ours comes near the bound here.
  static constexpr std::size_t kMaxBlocks = 64;

  FreeList() { blocks_[0] = {0, kEndless}; }  // NOLINT(*-member-init)

  /// The offset of `bytes` (a multiple of the alignment, 0 for empty tensors): the smallest hole
  /// that holds them, the last of equals, and only if there is none the end.
  std::int64_t allocate(std::int64_t bytes) {
    std::size_t best = n_blocks_ - 1;
    std::int64_t best_size = kEndless;
    for (std::size_t i = best; i-- > 0;) {
      if (blocks_[i].bytes >= bytes && blocks_[i].bytes < best_size) {
        best = i;
        best_size = blocks_[i].bytes;
        if (best_size == bytes) {
          break;  // no smaller one holds them
        }
      }
    }
    Block& block = blocks_[best];
    const std::int64_t offset = block.offset;
    block.offset += bytes;
    block.bytes -= bytes;
    if (block.bytes == 0) {
      remove(best);
    }
    max_bytes_ = offset + bytes > max_bytes_ ? offset + bytes : max_bytes_;
    return offset;
  }

  /// Looks at every block, as ggml does: empty ones, of empty tensors, may lie out of order.
  void release(std::int64_t offset, std::int64_t bytes) {
    for (std::size_t i = 0; i < n_blocks_; ++i) {
      Block& block = blocks_[i];
      if (block.offset + block.bytes == offset) {
        block.bytes += bytes;
        if (i + 1 < n_blocks_ && block.offset + block.bytes == blocks_[i + 1].offset) {
          block.bytes += blocks_[i + 1].bytes;
          remove(i + 1);
        }
        return;
      }
      if (offset + bytes == block.offset) {
        block.offset = offset;
        block.bytes += bytes;
        return;  // a block that ended here would have been found above
      }
    }
    insert(offset, bytes);
  }

  /// The highest end of any allocation so far.
  [[nodiscard]] std::int64_t max_bytes() const { return max_bytes_; }

  /// Takes over the holes of another list, not its maximum.
  void assign_holes(const FreeList& other) {
    n_blocks_ = other.n_blocks_;
    for (std::size_t i = 0; i < n_blocks_; ++i) {
      blocks_[i] = other.blocks_[i];
    }
  }

  /// Equal holes: the same allocations will land on the same offsets.
  [[nodiscard]] bool same_holes(const FreeList& other) const {
    if (n_blocks_ != other.n_blocks_) {
      return false;
    }
    for (std::size_t i = 0; i < n_blocks_; ++i) {
      if (blocks_[i].offset != other.blocks_[i].offset ||
          blocks_[i].bytes != other.blocks_[i].bytes) {
        return false;
      }
    }
    return true;
  }

 private:
  struct Block {
    std::int64_t offset;
    std::int64_t bytes;
  };
  static constexpr std::int64_t kEndless = INT64_MAX / 2;

  void remove(std::size_t index) {
    --n_blocks_;
    for (std::size_t i = index; i < n_blocks_; ++i) {
      blocks_[i] = blocks_[i + 1];
    }
  }

  void insert(std::int64_t offset, std::int64_t bytes) {
    if (n_blocks_ == kMaxBlocks) {
      throw std::logic_error("more holes in a compute buffer than FreeList holds");
    }
    std::size_t at = 0;
    while (at < n_blocks_ && blocks_[at].offset < offset) {
      ++at;
    }
    for (std::size_t i = n_blocks_; i > at; --i) {
      blocks_[i] = blocks_[i - 1];
    }
    blocks_[at] = {offset, bytes};
    ++n_blocks_;
  }

  std::array<Block, kMaxBlocks> blocks_;  // the first n_blocks_ count; the rest is never read
  std::size_t n_blocks_ = 1;
  std::int64_t max_bytes_ = 0;
};

}  // namespace kvfathom::llama_cpp
