// Writes data/models from tests/data/configs: make_catalog CONFIGS MODELS.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "tests/catalog_entries.h"

int main(int argc, char** argv) {
  namespace fs = std::filesystem;
  if (argc != 3 || !fs::is_directory(argv[1])) {
    std::cerr << "usage: make_catalog CONFIGS MODELS (CONFIGS holds sources.tsv)\n";
    return 2;
  }
  const auto entries = kvfathom::catalog::make_entries(argv[1]);
  const fs::path models(argv[2]);
  fs::create_directories(models);
  for (const auto& old : fs::directory_iterator(models)) {
    if (old.path().extension() == ".json" &&
        !entries.documents.contains(old.path().stem().string())) {
      fs::remove(old.path());
    }
  }
  for (const auto& [id, document] : entries.documents) {
    std::ofstream(models / (id + ".json"), std::ios::binary) << document;
  }
  for (const auto& [file, why] : entries.refused) {
    std::cout << "refused " << file << ": " << why << "\n";
  }
  std::cout << entries.documents.size() << " models written\n";
  return 0;
}
