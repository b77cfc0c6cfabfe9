#include "cli/fit_speed.h"

#include <algorithm>

#include "cli/format.h"
#include "cli/headline.h"
#include "cli/sentences.h"
#include "cli/speed_plan.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

/// What runs beside the model is in the ledger, but no step is priced with it.
void refuse_companions(const Query& query) {
  if (query.draft || query.settings.draft_tokens > 0) {
    throw Unsupported(
        query.draft ? "--draft" : "--mtp", "how many drafted tokens are accepted is not known", "");
  }
  if (query.adapters) {
    throw Unsupported("--lora", "no law is known for the products of adapters", "");
  }
}

FitSpeed speed_of(const Query& query, const FitAnswer& answer) {
  refuse_companions(query);
  SpeedPlan plan(query, answer.cache_case);
  const std::int64_t context = answer.max_context_tokens;
  const StepTime step = plan.decode(context, answer.sequences, false);
  FitSpeed speed{
      .tokens_per_s = per_second(static_cast<double>(answer.sequences), step.time_s),
      .bound = step.bound,
  };
  if (plan.prices_prompts()) {
    speed.ttft_s = plan.prompt(context, false).time_s;
  }
  speed.laws = plan.laws_sentence();
  return speed;
}

std::string row_name(const FitAnswer& answer, RowsAre rows) {
  return rows == RowsAre::engines
             ? answer.engine_name
             : answer.label.text + " " + type_pair(answer.label.k, answer.label.v);
}

/// "Times: data sheet." is true of every row, "Times of vllm: data sheet." of those named. Schemes
/// differ in the kernels that they add alone: the first says it for all.
void print_laws(Console& console, const Sentences& laws, RowsAre rows) {
  constexpr std::string_view kTimes = "Times";
  const bool all_alike = laws.rows().size() == 1;
  for (const auto& [names, sentence] : laws.rows()) {
    std::string text = sentence;
    if (!all_alike) {
      text.insert(kTimes.size(), " of " + names);
    }
    if (!all_alike && rows == RowsAre::schemes) {
      console.paragraph(text + " Of the others: --json.", 2);
      return;
    }
    console.paragraph(text, 2);
  }
}

}  // namespace

void add_speed(const Query& query, FitAnswer& answer) {
  if (answer.max_context_tokens == 0) {
    return;  // nothing runs
  }
  try {
    answer.speed = speed_of(query, answer);
  } catch (const InputError& error) {
    answer.no_speed = error.what();
  } catch (const Unsupported& error) {
    answer.no_speed = error.what();
  }
}

void add_speed_columns(Table& table) {
  table.columns.push_back({"tok/s", Align::right});
  table.columns.push_back({"90 %", Align::right});
  table.columns.push_back({"TTFT", Align::right});
  table.columns.push_back({"90 %", Align::right, false, kTtftInterval});
}

void add_speed_cells(std::vector<Cell>& row, const FitAnswer& answer, Style style) {
  std::vector<Cell> cells(4, Cell{"-", style});
  if (answer.speed) {
    const Estimate& rate = answer.speed->tokens_per_s;
    cells[0].text = rounded(rate.value);
    cells[1].text = interval(rate.low, rate.high);
    if (const auto& ttft = answer.speed->ttft_s) {
      cells[2].text = duration(ttft->value);
      cells[3].text = duration_interval(ttft->low, ttft->high);
    }
  }
  row.insert(row.end(), cells.begin(), cells.end());
}

void print_speed_notes(Console& console, const std::vector<FitAnswer>& answers, RowsAre rows) {
  Sentences laws;
  Sentences refusals;
  bool prompts = true;
  for (const FitAnswer& answer : answers) {
    if (answer.speed) {
      laws.add(row_name(answer, rows), answer.speed->laws);
      prompts = prompts && answer.speed->ttft_s;
    } else if (!answer.no_speed.empty()) {
      refusals.add(row_name(answer, rows), printable(answer.no_speed));
    }
  }
  if (laws.rows().empty() && refusals.rows().empty()) {
    return;
  }
  console.line();
  if (!laws.rows().empty()) {
    const bool alone =
        std::ranges::all_of(answers, [](const FitAnswer& answer) { return answer.sequences <= 1; });
    console.paragraph(std::string("tok/s: decode behind the whole context") +
                          (alone ? "" : ", of all sequences together") +
                          (prompts ? "; TTFT: one prompt that fills it."
                                   : "; no peak rate is known, so prompts have no time."),
                      2);
  }
  print_laws(console, laws, rows);
  for (const auto& [names, reason] : refusals.rows()) {
    std::string text = "No speed";
    if (!laws.rows().empty()) {
      text.append(" of ").append(names);
    }
    console.paragraph(text.append(": ").append(reason), 2);
  }
}

void add_speed_json(Json& json, const FitAnswer& answer) {
  json["speed"] = nullptr;
  if (!answer.no_speed.empty()) {
    json["speed_refused"] = answer.no_speed;
  }
  if (!answer.speed) {
    return;
  }
  const FitSpeed& speed = *answer.speed;
  json["speed"] = {{"decode_tokens_per_s", estimate_json(speed.tokens_per_s)},
                   {"bound_by", name(speed.bound)},
                   {"laws", speed.laws}};
  if (speed.ttft_s) {
    const auto tokens = static_cast<double>(answer.max_context_tokens);
    json["speed"]["ttft_s"] = estimate_json(*speed.ttft_s);
    json["speed"]["prefill_tokens_per_s"] = estimate_json(per_second(tokens, *speed.ttft_s));
  }
}

}  // namespace kvfathom::cli
