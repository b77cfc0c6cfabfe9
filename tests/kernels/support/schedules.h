// The same launch under every schedule of the emulator, and with every synchronisation left out.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/simt/emulator_control.h"

namespace kvfathom::kernels {

inline const std::vector<simt::Schedule>& all_schedules() {
  static const std::vector<simt::Schedule> schedules = {
      {.order = simt::Order::forward},
      {.order = simt::Order::reverse},
      {.order = simt::Order::shuffled, .seed = 7},
      {.order = simt::Order::forward, .n_workers = 2, .eager_copies = true},
  };
  return schedules;
}

/// `check` runs once under each schedule; one run suffices on a real device.
inline void under_every_schedule(const std::function<void()>& check) {
  for (const simt::Schedule& schedule : all_schedules()) {
    SCOPED_TRACE("order " + std::to_string(static_cast<int>(schedule.order)));
    simt::set_schedule(schedule);
    check();
    if (!device().emulated) {
      break;
    }
  }
  simt::set_schedule({});
}

/// Leaves out each barrier and each wait that `is_right` reaches, one at a time, and expects that
/// under some schedule `is_right` answers false or throws. `harmless`: lines (as they read in the
/// file) whose omission no result can show, each with its reason beside it in the test.
inline void expect_every_sync_matters(const std::function<bool()>& is_right,
                                      const std::vector<simt::SyncSite>& harmless = {}) {
  if (!device().emulated) {
    return;
  }
  static_cast<void>(simt::take_sync_sites());
  ASSERT_TRUE(is_right());
  const std::vector<simt::SyncSite> sites = simt::take_sync_sites();
  for (const simt::SyncSite& site : sites) {
    bool noticed = false;
    for (const simt::Schedule& schedule : all_schedules()) {
      simt::set_schedule(schedule);
      simt::skip_sync(site);
      try {
        noticed = noticed || !is_right();
      } catch (const std::exception&) {
        noticed = true;
      }
      simt::skip_sync({});
    }
    simt::set_schedule({});
    const bool excused = std::find(harmless.begin(), harmless.end(), site) != harmless.end();
    EXPECT_TRUE(noticed || excused) << "nothing notices that the synchronisation at " << site.file
                                    << ":" << site.line << " is missing";
  }
}

}  // namespace kvfathom::kernels
