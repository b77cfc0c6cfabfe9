#include "cli/app.h"

#include <algorithm>
#include <exception>
#include <functional>
#include <new>

#include <CLI/CLI.hpp>

#include "cli/calibrations.h"
#include "cli/commands.h"
#include "cli/format.h"
#include "cli/json_writer.h"
#include "cli/nearest.h"
#include "cli/options.h"
#include "cli/values.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

struct Command {
  const char* name;
  const char* summary;
  const char* example;
  void (*add_options)(CLI::App&, Options&);
  int (*run)(const Options&, Console&);
};

/// Which model, on which machine, under which engine.
void add_query_options(CLI::App& command, Options& options) {
  add_model_options(command, options);
  add_gpu_options(command, options);
  add_engine_options(command, options);
}

const Command kCommands[] = {
    {"fit",
     "the longest context, or the most sequences, that a machine holds",
     "kvfathom fit glm-4.7-flash --gpu rtx-4090 --weights q4_k_m",
     [](CLI::App& app, Options& options) {
       add_query_options(app, options);
       add_draft_options(app, options);
       add_adapter_options(app, options);
       add_projector_options(app, options);
       add_inverse_options(app, options);
       add_law_options(app, options);
     },
     fit},
    {"memory",
     "the ledger for exact settings",
     "kvfathom memory glm-4.7-flash --engine llama.cpp --context 200000 --gpu rtx-4090",
     [](CLI::App& app, Options& options) {
       add_query_options(app, options);
       add_draft_options(app, options);
       add_adapter_options(app, options);
       add_projector_options(app, options);
       app.add_option(
              "--total-context", options.engine.total_context, "tokens in all (llama.cpp -c)")
           ->type_name("N")
           ->group("Engine");
     },
     memory},
    {"speed",
     "prefill and decode speed by context and batch, what bounds each",
     "kvfathom speed llama-3.1-8b --gpu h100-sxm --context 32768",
     [](CLI::App& app, Options& options) {
       add_query_options(app, options);
       add_draft_options(app, options);
       add_law_options(app, options);
       add_speed_options(app, options);
     },
     speed},
    {"crossover",
     "recompute cached state, or fetch it: which is quicker, and from when",
     "kvfathom crossover llama-3.1-8b --gpu h100-sxm --tier host",
     [](CLI::App& app, Options& options) {
       add_query_options(app, options);
       add_crossover_options(app, options);
       add_law_options(app, options);
     },
     crossover},
    {"calibrate",
     "measure this machine's kernels, for predictions of its speed",
     "kvfathom calibrate --quick",
     [](CLI::App&, Options&) {},
     [](const Options&, Console&) { return calibrate({}); }},
    {"inspect",
     "what a model's file says: layers, cache per token, parameters",
     "kvfathom inspect glm-4.7-flash",
     [](CLI::App& app, Options& options) { add_model_options(app, options); },
     inspect},
    {"list",
     "what kvfathom knows: models, gpus, schemes, types, engines, calibrations",
     "kvfathom list gpus",
     [](CLI::App& app, Options& options) {
       app.add_option(
              "WHAT", options.list_what, "models, gpus, schemes, types, engines or calibrations")
           ->required();
     },
     list},
    {"validate",
     "predictions against logged truth: the error table, by component",
     "kvfathom validate",
     [](CLI::App& app, Options& options) {
       app.add_option("--truth", options.truth, "folder of truth rows (default: those that ship)")
           ->type_name("DIR");
       app.add_flag("--speed", options.speed_truth, "measured speeds, in place of logged memory");
     },
     validate},
};

constexpr const char* kUsage =
    "examples:\n"
    "  kvfathom fit glm-4.7-flash --gpu rtx-4090 --weights q4_k_m\n"
    "  kvfathom memory model.gguf --context 32768 --gpu local\n"
    "  kvfathom inspect model.gguf";

std::string command_names() {
  std::vector<std::string> names;
  for (const Command& command : kCommands) {
    names.emplace_back(command.name);
  }
  return joined(names);
}

/// A word that nothing expects: an option misspelt, or one argument too many.
InputError unexpected(const std::string& word, const CLI::App* command) {
  if (command == nullptr) {
    return {"kvfathom", "'" + printable(word) + "' is no command", "use one of " + command_names()};
  }
  const std::string help = "see kvfathom " + command->get_name() + " --help";
  const std::string shown = "'" + printable(word.substr(0, word.find('='))) + "'";
  if (!word.starts_with("-")) {
    return {command->get_name(), "one argument too many, " + shown, help};
  }
  std::vector<std::string> names;
  for (const CLI::Option* option : command->get_options()) {
    for (const std::string& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
  }
  // A name that shares little with the word would only puzzle.
  const std::string near = joined(nearest(word, names, 1));
  const bool close = edit_distance(word, near) * 3 <= static_cast<int>(word.size());
  return {command->get_name(),
          "unknown option " + shown,
          (close ? "the nearest is " + near + "; " : "") + help};
}

/// One line for whatever the parser did not like, in the words of the other refusals.
InputError usage_error(const CLI::ParseError& error, const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  const CLI::App* command = chosen.empty() ? nullptr : chosen.front();
  // The parser asks for what is missing before it looks at what is wrong; people look first at
  // what they wrote.
  if (const auto extras = app.remaining(true); !extras.empty()) {
    return unexpected(extras.front(), command);
  }
  if (command == nullptr) {
    return {"kvfathom", "a command is missing", "use one of " + command_names()};
  }
  std::string found = error.what();
  std::replace(found.begin(), found.end(), '\n', ' ');
  return {command->get_name(), found, "see kvfathom " + command->get_name() + " --help"};
}

int report(const Error& error, bool json, Console& console) {
  console.out.clear();
  const std::string message = error.what();
  console.err += (message.starts_with("kvfathom: ") ? "" : "kvfathom: ") + message + "\n";
  if (json) {
    print_json(console, error_json(error));
  }
  return error.exit_code();
}

int parse_and_run(const std::vector<std::string>& arguments, Console& console) {
  if (!arguments.empty() && arguments.front() == "calibrate") {
    return calibrate({arguments.begin() + 1, arguments.end()});  // its options are its own
  }
  Options options;
  CLI::App app{"kvfathom: how much context fits on my GPU", "kvfathom"};
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("kvfathom ") + KVFATHOM_VERSION);
  app.footer(kUsage);
  const Command* chosen = nullptr;
  for (const Command& command : kCommands) {
    CLI::App* sub = app.add_subcommand(command.name, command.summary);
    sub->footer(std::string("example:\n  ") + command.example);
    // Only the command in use pays for its options.
    if (std::find(arguments.begin(), arguments.end(), command.name) != arguments.end()) {
      command.add_options(*sub, options);
      add_output_options(*sub, options);
    }
    sub->callback([&chosen, &command] { chosen = &command; });
  }
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    console.out += app.help();
    return 0;
  } catch (const CLI::CallForVersion& version) {
    console.out += std::string(version.what()) + "\n";
    return 0;
  } catch (const CLI::ParseError& error) {
    throw usage_error(error, app);
  }
  console.json = options.output.json;
  console.quiet = options.output.quiet;
  if (options.output.no_color) {
    console.terminal.colour = false;
  }
  if (options.output.width) {
    constexpr int kNarrowest = 40;
    constexpr int kWidest = 400;
    console.terminal.width =
        static_cast<int>(parse_count("--width", *options.output.width, kNarrowest, kWidest));
  }
  return chosen->run(options, console);
}

}  // namespace

int run(const std::vector<std::string>& arguments, Console& console) {
  const bool json = std::find(arguments.begin(), arguments.end(), "--json") != arguments.end();
  try {
    return parse_and_run(arguments, console);
  } catch (const Error& error) {
    return report(error, json, console);
  } catch (const std::bad_alloc&) {
    return report(MachineError("kvfathom", "out of memory", ""), json, console);
  } catch (const std::exception& error) {
    return report(MachineError("kvfathom", error.what(), "please report this"), json, console);
  }
}

}  // namespace kvfathom::cli
