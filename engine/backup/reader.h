/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the reading child says on its standard output: records of u8 kind, u32 length (little-
 * endian) and so many bytes.  Parent and child are one program, so there is no version to it.
 *
 *   'B'  u32 page size (0: raw), u64 size in bytes, u8 whether the application is kept from
 *        committing for as long as it is read; comes first
 *   'D'  the next bytes
 *   'E'  u32 enum err_kind, u8 whether another try may do, text; ends it
 *   'Z'  all of it came; ends it
 */
#ifndef ASOF_BACKUP_READER_H
#define ASOF_BACKUP_READER_H

#define READER_WORD "asof-read-database"
#define READER_SNAPSHOT "snapshot"
#define READER_RAW "raw"

#define READER_RECORD_HEAD 5
#define READER_BEGIN_BYTES 13
#define READER_ERROR_HEAD 5
#define READER_RECORD_MAX (1u << 20)

enum reader_record {
	READER_BEGIN = 'B',
	READER_DATA = 'D',
	READER_ERROR = 'E',
	READER_END = 'Z',
};

#endif
