// kvfathom-bench: how fast the kernels are on this machine.
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "bench/kernels/measure.h"
#include "bench/kernels/options.h"
#include "kernels/common/device.h"
#include "model/error.h"

namespace kvfathom::bench {
namespace {

constexpr int kWrongResult = 1;
constexpr int kMachineError = 4;

void print_list() {
  for (const KernelBench& kernel : all_kernels()) {
    std::cout << kernel.name << "\n  formats:   ";
    for (const std::string& format : kernel.formats) {
      std::cout << ' ' << format;
    }
    std::cout << "\n  dimensions: " << kernel.tiny.names() << '\n';
    for (const Shape& shape : kernel.shapes) {
      std::cout << "  shape:      " << shape.text() << '\n';
    }
  }
}

void start_library(const char* program, const std::vector<std::string>& given) {
  static std::vector<std::string> arguments;  // the library keeps pointers into it
  arguments = given;
  arguments.insert(arguments.begin(), program);
  std::vector<char*> argv;
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  int argc = static_cast<int>(arguments.size());
  benchmark::Initialize(&argc, argv.data());
  if (argc > 1) {
    throw InputError(argv[1], "Google Benchmark has no such option", "see --benchmark_help");
  }
}

int run(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  if (options.help) {
    print_help(std::cout);
    return 0;
  }
  if (options.list) {
    print_list();
    return 0;
  }
  start_library(argv[0], options.library_arguments);
  std::vector<PlannedCase> cases = plan_cases(options);
  const std::string missing = options.on_cuda ? kernels::device_missing() : "";
  if (!missing.empty()) {
    std::cerr << "kvfathom-bench: CUDA cases are left out: " << missing << '\n';
    if (options.must_have_cuda) {
      return kMachineError;
    }
    std::erase_if(cases, [](const PlannedCase& c) { return c.request.place == Place::cuda; });
  }
  double device_read = 0.0;
  if (options.on_cuda && missing.empty()) {
    device_read = device_read_bandwidth(options);
    benchmark::AddCustomContext("cuda_device", kernels::device().name);
    benchmark::AddCustomContext("cuda_read_bytes_per_s", std::to_string(device_read));
  }
  register_cases(cases, options, device_read);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return any_wrong() ? kWrongResult : 0;
}

}  // namespace
}  // namespace kvfathom::bench

int main(int argc, char** argv) {
  try {
    return kvfathom::bench::run(argc, argv);
  } catch (const kvfathom::Error& error) {
    std::cerr << error.what() << '\n';
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "kvfathom-bench: " << error.what() << '\n';
    return kvfathom::bench::kMachineError;
  }
}
