/* SPDX-License-Identifier: MIT */
/* devices/vfio/record.h - the records that an opaque device's sections are made of. All integers are
 * big-endian; a record begins with its tag, and a section ends with END_OF_STATE or INIT_DATA_SENT.
 *
 *     START   SETUP [FORMAT] END                       before anything else
 *     PART    [DATA, u64 bytes, bytes] END             while the guest runs, or paused and more follows
 *     END     {DATA, u64 bytes, bytes} [TOTAL] END     paused: the rest
 *     FULL    CONFIG, configuration, END               after every iterative device
 *
 * FORMAT and TOTAL are for two godwits only, and are there if the source announces: other readers of
 * such streams know neither. */
#ifndef GODWIT_DEVICES_VFIO_RECORD_H
#define GODWIT_DEVICES_VFIO_RECORD_H

#include <stdint.h>

#define GW_VFIO_TAG(number) (UINT64_C(0xffffffffef100000) + (number))
#define GW_VFIO_END_OF_STATE GW_VFIO_TAG(1)
#define GW_VFIO_CONFIG_STATE GW_VFIO_TAG(2)
#define GW_VFIO_SETUP_STATE GW_VFIO_TAG(3)
#define GW_VFIO_DATA_STATE GW_VFIO_TAG(4)
#define GW_VFIO_INIT_DATA_SENT GW_VFIO_TAG(5)
#define GW_VFIO_CONFIG_LOAD_READY GW_VFIO_TAG(6) /* parallel transfer only */
#define GW_VFIO_FORMAT GW_VFIO_TAG(0x8001)       /* u8 length, name, u32 version */
#define GW_VFIO_TOTAL GW_VFIO_TAG(0x8002)        /* u64: bytes of DATA since SETUP */

#define GW_VFIO_DATA_BYTES_MAX (UINT64_C(1) << 40) /* of one record; more is a lie */
#define GW_VFIO_PIECE_BYTES ((size_t)1 << 20) /* at most so much is held, whatever a record says */

#endif
