// How the lanes of a warp share the bytes of a row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/simt/simt.h"

namespace kvfathom::kernels::decode {

/// A row of `kRowBytes` dealt to `kLanes` lanes in pieces as wide as they go: of 16 bytes while
/// whole rounds of them remain, then one of 8, 4 or 2. Neighbouring lanes read neighbouring pieces.
template <int kRowBytes, int kLanes>
struct RowShare {
  static_assert(kRowBytes % (2 * kLanes) == 0, "a lane's share is a multiple of 2 bytes");
  static constexpr int kBytes = kRowBytes / kLanes;
  static constexpr int kWords = (kBytes + 3) / 4;
  static constexpr int kPieces =
      kBytes / 16 + (kBytes / 8 % 2) + (kBytes / 4 % 2) + (kBytes / 2 % 2);

  struct Piece {
    int index, first, width;
  };
  /// The piece of the share that holds its byte `i`.
  static constexpr Piece piece_of(int i) {
    if (i < kBytes / 16 * 16) {
      return Piece{i / 16, i / 16 * 16, 16};
    }
    Piece piece{kBytes / 16, kBytes / 16 * 16, 0};
    for (int width = 8; width >= 2; width /= 2) {
      if (kBytes / width % 2 != 0) {
        piece.width = width;
        if (i < piece.first + width) {
          break;
        }
        ++piece.index, piece.first += width;
      }
    }
    return piece;
  }
  /// The first byte of a piece.
  static constexpr int piece_first(int index) {
    int first = 0;
    while (index-- > 0) {
      first += piece_of(first).width;
    }
    return first;
  }
  /// Where in the row byte `i` of a lane's share lies.
  static constexpr int row_byte(int i, int lane) {
    const Piece piece = piece_of(i);
    return piece.first * kLanes + piece.width * lane + (i - piece.first);
  }

  /// Reads a lane's share; zeros where the row does not exist.
  SIMT_DEVICE static void load(std::uint32_t (&words)[kWords],
                               const std::byte* row,
                               int lane,
                               bool exists) {
    if (exists) {
      load_from<0>(words, row, lane);
    } else {
      SIMT_UNROLL for (int i = 0; i < kWords; ++i) {
        words[i] = 0;
      }
    }
  }

 private:
  template <int kFirst>
  SIMT_DEVICE static void load_from(std::uint32_t (&words)[kWords],
                                    const std::byte* row,
                                    int lane) {
    constexpr Piece kPiece = piece_of(kFirst);
    constexpr int kWord = kFirst / 4;
    const std::byte* from = row + kFirst * kLanes + kPiece.width * lane;
    if constexpr (kPiece.width == 16) {
      const auto piece = simt::ld_stream<simt::U32x4>(from);
      words[kWord] = piece.x, words[kWord + 1] = piece.y;
      words[kWord + 2] = piece.z, words[kWord + 3] = piece.w;
    } else if constexpr (kPiece.width == 8) {
      const auto piece = simt::ld_stream<simt::U32x2>(from);
      words[kWord] = piece.x, words[kWord + 1] = piece.y;
    } else if constexpr (kPiece.width == 4) {
      words[kWord] = simt::ld_stream<std::uint32_t>(from);
    } else {
      words[kWord] = simt::ld_stream<std::uint16_t>(from);
    }
    if constexpr (kFirst + kPiece.width < kBytes) {
      load_from<kFirst + kPiece.width>(words, row, lane);
    }
  }
};

}  // namespace kvfathom::kernels::decode
