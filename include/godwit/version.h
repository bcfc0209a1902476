/* SPDX-License-Identifier: MIT */
/* godwit/version.h - the library's version, at build time and at run time.
 * Wire version, library ABI and the command's JSON are versioned apart. */
#ifndef GODWIT_VERSION_H
#define GODWIT_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GW_API __attribute__((visibility("default")))
#define GW_PRINTF(format_at, first_at) __attribute__((format(printf, format_at, first_at)))
#else
#define GW_API
#define GW_PRINTF(format_at, first_at)
#endif

#define GW_VERSION_MAJOR 0
#define GW_VERSION_MINOR 1
#define GW_VERSION_PATCH 0

/** gw_version() - "MAJOR.MINOR.PATCH" of the library that runs. [any thread] Static storage. */
GW_API const char *gw_version(void);

/** gw_build_features() - wires, and optional parts and whether the build found them, as
 *  "wires=tcp,unix in-process=loop verbs=no ..."; for --version and bug reports. Wires under
 *  in-process carry a guest within this process only, for tests. [any thread] Static storage. */
GW_API const char *gw_build_features(void);

#ifdef __cplusplus
}
#endif
#endif
