// What `kvfathom crossover` says of a tier in one sentence.
#include <string>

#include "cli/crossover.h"
#include "cli/format.h"

namespace kvfathom::cli {
namespace {

std::string arm_name(bool fetch) {
  return fetch ? "fetching" : "recomputing";
}

/// Of the length from which on fetching wins: how far off it may be; empty where it is exact.
std::string interval_text(const Contest& contest) {
  const auto& low = contest.crossover_low;
  const auto& high = contest.crossover_high;
  const auto value = crossover_tokens(contest);
  if (low == value && high == value) {
    return {};
  }
  const std::string errors = "with the intervals of both sides";
  if (!low) {
    return {};  // never, at the best for fetching too
  }
  if (!value) {
    return " (" + errors + " fetching may win from " + thousands(*low) + " on)";
  }
  if (high) {
    return " (between " + thousands(*low) + " and " + thousands(*high) + " " + errors + ")";
  }
  return " (" + errors + " from " + thousands(*low) + ", or not at all)";
}

/// Spans of the last winner between the first change and the last, which chunk boundaries make.
std::string between_text(const std::vector<Reign>& reigns) {
  const std::size_t last = reigns.size() - 1;
  std::size_t first = 0;
  while (reigns[first].fetch != reigns[last].fetch) {
    ++first;
  }
  first += first == 0 ? 2 : 0;  // what wins from the start is said as such
  if (first >= last) {
    return {};
  }
  const std::string to = thousands(reigns[last - 1].from_tokens - 1);
  const std::string from = thousands(reigns[first].from_tokens);
  return first + 2 == last ? ", from " + from + " to " + to
                           : ", now and then between " + from + " and " + to;
}

std::string winner_text(const Contest& contest, std::int64_t limit_tokens) {
  const std::vector<Reign>& reigns = contest.reigns;
  const Reign& last = reigns.back();
  const std::string winner = arm_name(last.fetch);
  const std::string loser = arm_name(!last.fetch);
  const std::string interval = interval_text(contest);
  if (reigns.size() == 1) {
    return winner + " wins at every length up to " + counted(limit_tokens, "token") + interval;
  }
  const std::string from =
      winner + " wins from " + counted(last.from_tokens, "token") + " on" + interval;
  if (reigns.size() == 2) {
    return from + ", " + loser + " before";
  }
  const bool is_first = reigns.front().fetch == last.fetch;
  if (reigns.size() == 3) {
    return from + " and below " + thousands(reigns[1].from_tokens) + ", " + loser + " in between";
  }
  return from + (is_first ? ", below " + thousands(reigns[1].from_tokens) : "") +
         between_text(reigns) + "; " + loser + " else";
}

}  // namespace

std::optional<std::int64_t> crossover_tokens(const Contest& contest) {
  const Reign& last = contest.reigns.back();
  return last.fetch ? std::optional(last.from_tokens) : std::nullopt;
}

std::string contest_sentence(const Contest& contest,
                             std::int64_t tokens,
                             std::int64_t limit_tokens) {
  return winner_text(contest, limit_tokens) + ": " + counted(tokens, "token") +
         (tokens == 1 ? " takes " : " take ") + duration(contest.fetch_s.value) + " to fetch and " +
         duration(contest.recompute_s.value) + " to recompute.";
}

}  // namespace kvfathom::cli
