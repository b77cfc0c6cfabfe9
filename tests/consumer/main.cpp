// Fails to build or to run when the installed headers, libraries or CMake package are incomplete.
#include "calibrate/local_device.h"
#include "model/text/size.h"

int main() {
  const bool right = kvfathom::parse_size("24GiB", "consumer") == 25769803776 &&
                     kvfathom::local_host().memory_bytes > 0;
  return right ? 0 : 1;
}
