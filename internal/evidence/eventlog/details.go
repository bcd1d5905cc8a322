package eventlog

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Type is the type of an event (TCG PC Client Platform Firmware Profile, 10.4.1).
type Type uint32

// The types that something depends on.
const (
	NoAction        Type = 0x00000003
	Separator       Type = 0x00000004
	EventTag        Type = 0x00000006
	PlatformFlags   Type = 0x0000000a
	BootServices    Type = 0x80000003
	FirmwareBlob2   Type = 0x8000000a
	maxDetail            = 4 << 10
	mediaPath, file      = 4, 4 // device path: media, file path (UEFI 10.3.5.4)
)

var names = map[Type]string{
	0x00: "EV_PREBOOT_CERT", 0x01: "EV_POST_CODE", 0x02: "EV_UNUSED", 0x03: "EV_NO_ACTION", 0x04: "EV_SEPARATOR", 0x05: "EV_ACTION",
	0x06: "EV_EVENT_TAG", 0x07: "EV_S_CRTM_CONTENTS", 0x08: "EV_S_CRTM_VERSION", 0x09: "EV_CPU_MICROCODE", 0x0a: "EV_PLATFORM_CONFIG_FLAGS",
	0x0b: "EV_TABLE_OF_DEVICES", 0x0c: "EV_COMPACT_HASH", 0x0d: "EV_IPL", 0x0e: "EV_IPL_PARTITION_DATA", 0x0f: "EV_NONHOST_CODE",
	0x10: "EV_NONHOST_CONFIG", 0x11: "EV_NONHOST_INFO", 0x12: "EV_OMIT_BOOT_DEVICE_EVENTS", 0x13: "EV_POST_CODE2",
	0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG", 0x80000002: "EV_EFI_VARIABLE_BOOT", 0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
	0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER", 0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER", 0x80000006: "EV_EFI_GPT_EVENT",
	0x80000007: "EV_EFI_ACTION", 0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB", 0x80000009: "EV_EFI_HANDOFF_TABLES",
	0x8000000a: "EV_EFI_PLATFORM_FIRMWARE_BLOB2", 0x8000000b: "EV_EFI_HANDOFF_TABLES2", 0x8000000c: "EV_EFI_VARIABLE_BOOT2",
	0x8000000d: "EV_EFI_GPT_EVENT2", 0x80000010: "EV_EFI_HCRTM_EVENT", 0x800000e0: "EV_EFI_VARIABLE_AUTHORITY",
	0x800000e1: "EV_EFI_SPDM_FIRMWARE_BLOB", 0x800000e2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
}

// String is the type's name in the specification.
func (t Type) String() string {
	if n := names[t]; n != "" {
		return n
	}
	return fmt.Sprintf("%#x", uint32(t))
}

// algorithmNames are texts, boxed once: a claim of each digest has one.
var algorithmNames = map[Algorithm]any{SHA1: "SHA-1", SHA256: "SHA-256", SHA384: "SHA-384", SHA512: "SHA-512"}

// Claims are the events for policies, with the members that existing policies
// use. digest_matches_event says of each whether its event and details are as
// true as its digest.
func (l *Log) Claims() []any {
	out := make([]any, 0, len(l.Events))
	var text []byte
	for _, e := range l.Events {
		digests := make([]any, 0, len(e.Digests))
		for _, d := range e.Digests {
			if n := algorithmNames[d.Algorithm]; n != nil {
				text = hex.AppendEncode(text[:0], d.Value)
				digests = append(digests, map[string]any{"alg": n, "digest": string(text)})
			}
		}
		out = append(out, map[string]any{
			"index": float64(e.Register), "type_name": e.Type.String(), "digests": digests, "digest_matches_event": e.Hashed(),
			"event": base64.StdEncoding.EncodeToString(e.Data), "details": e.details(),
		})
	}
	return out
}

// details are what can be read of the data of some types of events; nothing of
// others, and of data that do not have the form of their type.
func (e Event) details() map[string]any {
	switch e.Type {
	case PlatformFlags:
		return map[string]any{"string": flags(e.Data)}
	case FirmwareBlob2: // 10.2.5: length, name, base, length
		if len(e.Data) > 0 && 1+int(e.Data[0]) <= len(e.Data) {
			return map[string]any{"string": text(e.Data[1 : 1+int(e.Data[0])])}
		}
	case EventTag: // 10.4.2.1: id, length, data
		if len(e.Data) >= 8 && int64(binary.LittleEndian.Uint32(e.Data[4:])) == int64(len(e.Data)-8) {
			return map[string]any{"string": text(e.Data[8:])}
		}
	case BootServices:
		if paths := devicePaths(e.Data); paths != nil {
			return map[string]any{"device_paths": paths}
		}
	}
	return map[string]any{}
}

// flags reads the configuration of td-shim: a name of 16 bytes, a length, and a
// text. Anything else has no string.
func flags(data []byte) string {
	if len(data) < 20 {
		return ""
	}
	n := int64(binary.LittleEndian.Uint32(data[16:]))
	if n > int64(len(data)-20) || bytes.IndexByte(data[:16], 0) == 0 {
		return ""
	}
	name, value := text(data[:16]), text(data[20:20+n])
	if name == "" || value == "" {
		return ""
	}
	return name + " " + value
}

// text is UTF-8 up to its closing zeros; nothing if it has others or is not
// UTF-8.
func text(b []byte) string {
	b = bytes.TrimRight(b, "\x00")
	if len(b) > maxDetail || !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		return ""
	}
	return string(b)
}

// devicePaths reads the file names in the device path of an image that was
// loaded (UEFI_IMAGE_LOAD_EVENT, 10.2.3; UEFI 10.3).
func devicePaths(data []byte) []any {
	if len(data) < 32 {
		return nil
	}
	n := binary.LittleEndian.Uint64(data[24:])
	path := data[32:]
	if n > maxEvent || int(n) != len(path) {
		return nil
	}
	out := []any{}
	for len(path) >= 4 {
		size := int(binary.LittleEndian.Uint16(path[2:]))
		if size < 4 || size > len(path) {
			return nil
		}
		if path[0] == mediaPath && path[1] == file {
			out = append(out, "File("+wide(path[4:size])+")")
		}
		path = path[size:]
	}
	return out
}

// wide is UTF-16 up to its closing zero.
func wide(b []byte) string {
	if len(b) > maxDetail {
		return ""
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return strings.TrimRight(string(utf16.Decode(units)), "\x00")
}
