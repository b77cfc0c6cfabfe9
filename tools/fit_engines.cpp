// Fits what engines add to a data sheet: kvfathom-fit-engines TRUTH_FOLDER OUT_FOLDER [--rows FILE]
//
// Writes OUT_FOLDER/ENGINE.json for every engine of TRUTH_FOLDER/speed.tsv, and reference.json with
// what is assumed of an engine without rows; with --rows, also every held-out prediction as a
// table.
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "cli/speed_fit.h"
#include "model/io/engine_law_json.h"
#include "model/io/file.h"

namespace {

using kvfathom::Phase;

void print_errors(const kvfathom::EngineSpeed& speed) {
  std::printf("%s: %lld rows\n", speed.engine.c_str(), static_cast<long long>(speed.n_rows));
  for (const kvfathom::EngineError& e : speed.errors) {
    std::printf("  %-8s %-21s %-8s n %4lld  median %5.1f %%  P90 %6.1f %%  bias %+6.1f %%\n",
                e.phase == Phase::prefill ? "prefill" : "decode",
                e.device_class.c_str(),
                e.device_known ? "" : "held out",
                static_cast<long long>(e.n),
                100.0 * e.median_abs_error,
                100.0 * e.p90_abs_error,
                100.0 * e.bias);
  }
}

void write_rows(std::ostream& out, const std::vector<kvfathom::cli::HeldOut>& held_out) {
  for (const kvfathom::cli::HeldOut& one : held_out) {
    const auto& row = *one.row;
    out << row.id << '\t' << row.engine << '\t' << row.backend << '\t' << one.device_class << '\t'
        << row.gpu << '\t' << row.n_gpus << '\t' << row.model << '\t' << row.weights << '\t'
        << row.batch << '\t' << row.prompt_tokens << '\t' << row.new_tokens << '\t'
        << row.depth_tokens << '\t' << row.chunk_tokens << '\t' << row.flash_attention << '\t'
        << static_cast<int>(row.metric) << '\t' << one.device_known << '\t' << one.log_ratio
        << '\n';
  }
}

int run(const std::vector<std::string>& arguments) {
  const std::vector<kvfathom::cli::SpeedRow> rows = kvfathom::cli::read_speed_truth(arguments[0]);
  std::map<std::string, int> engines;
  for (const auto& row : rows) {
    ++engines[row.engine];
  }
  std::ofstream table;
  if (arguments.size() > 3) {
    table.open(arguments[3]);
  }
  for (const auto& [engine, n] : engines) {
    const kvfathom::cli::SpeedFit fit = kvfathom::cli::fit_speed(engine, rows);
    const std::string path = arguments[1] + "/" + engine + ".json";
    kvfathom::write_file(path, kvfathom::write_engine_speed(fit.speed));
    print_errors(fit.speed);
    write_rows(table, fit.held_out);
  }
  // Our own kernels have no rows yet: what is assumed of any engine before it has.
  kvfathom::EngineSpeed reference = kvfathom::cli::initial_speed("reference");
  reference.source = "assumed: medians of published kernel tables";
  reference.provenance = kvfathom::Provenance::assumed;
  kvfathom::write_file(arguments[1] + "/reference.json", kvfathom::write_engine_speed(reference));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() != 2 && (arguments.size() != 4 || arguments[2] != "--rows")) {
    std::cerr << "usage: kvfathom-fit-engines TRUTH_FOLDER OUT_FOLDER [--rows FILE]\n";
    return 2;
  }
  try {
    return run(arguments);
  } catch (const std::exception& error) {
    std::cerr << "kvfathom-fit-engines: " << error.what() << '\n';
    return 2;
  }
}
