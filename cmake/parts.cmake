# SPDX-License-Identifier: MIT
# Parts from others. xxHash and jansson are required; the rest is looked for and reported in
# gw_config.h, where a room asks `#if GW_HAVE_...` before it relies on one.
find_package(PkgConfig REQUIRED)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# gw_part(name module): imported target gw::name from pkg-config, or stop.
function(gw_part name module)
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET GLOBAL ${module})
  add_library(gw::${name} ALIAS PkgConfig::${name})
endfunction()

gw_part(xxhash libxxhash)
gw_part(jansson jansson)

# gw_optional(NAME module): GW_HAVE_NAME and GW_VERSION_NAME.
macro(gw_optional name module)
  pkg_check_modules(GW_${name} QUIET IMPORTED_TARGET ${module})
  if(GW_${name}_FOUND)
    set(GW_HAVE_${name} 1)
    message(STATUS "${module}: ${GW_${name}_VERSION}")
  else()
    set(GW_HAVE_${name} 0)
    set(GW_${name}_VERSION "")
    message(STATUS "${module}: absent")
  endif()
endmacro()

gw_optional(IBVERBS libibverbs)
gw_optional(RDMACM librdmacm)
gw_optional(LIBFABRIC libfabric)
gw_optional(LIBURING liburing)
gw_optional(OPENSSL openssl)
gw_optional(ZSTD libzstd)
gw_optional(LZ4 liblz4)
gw_optional(ZLIB zlib)

# What the library links of them, and how godwit.pc says so to those who link the archive. A wire whose
# part is absent is not built, and its addresses are refused in its part's name (transport/transport.c).
set(GODWIT_LINK "")
set(GODWIT_PC_PRIVATE "")
set(GW_HAVE_RDMA 0)
if(GW_HAVE_IBVERBS AND GW_HAVE_RDMACM)
  set(GW_HAVE_RDMA 1)
  list(APPEND GODWIT_LINK PkgConfig::GW_RDMACM PkgConfig::GW_IBVERBS)
  string(APPEND GODWIT_PC_PRIVATE " -lrdmacm -libverbs")
endif()
set(GW_HAVE_OFI ${GW_HAVE_LIBFABRIC})
if(GW_HAVE_OFI) # its headers alone: the wire loads it when it is first used (transport/ofi/ofi_library.h)
  include_directories(SYSTEM ${GW_LIBFABRIC_INCLUDE_DIRS})
  list(APPEND GODWIT_LINK ${CMAKE_DL_LIBS})
endif()
if(GW_HAVE_ZLIB) # pages that old streams have compressed
  list(APPEND GODWIT_LINK PkgConfig::GW_ZLIB)
  string(APPEND GODWIT_PC_PRIVATE " -lz")
endif()

configure_file(${PROJECT_SOURCE_DIR}/cmake/gw_config.h.in ${GODWIT_GENERATED}/gw_config.h @ONLY)
