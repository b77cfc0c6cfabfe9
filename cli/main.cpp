// kvfathom: plans LLM serving. Everything is in app.cpp so that tests can call it.
#include <cstdio>
#include <string>
#include <vector>

#include "cli/app.h"

int main(int argc, char** argv) {
  kvfathom::cli::Console console;
  console.terminal = kvfathom::cli::detect_terminal();
  const int status = kvfathom::cli::run(std::vector<std::string>(argv + 1, argv + argc), console);
  std::fwrite(console.err.data(), 1, console.err.size(), stderr);
  const bool written =
      std::fwrite(console.out.data(), 1, console.out.size(), stdout) == console.out.size();
  if (!written || std::fflush(stdout) != 0) {
    std::perror("kvfathom: stdout");
    return 4;
  }
  return status;
}
