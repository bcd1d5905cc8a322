package policy

import (
	"context"
	"testing"
)

// snpEvidence is what the verifier of SNP reports, as far as the default policy looks.
func snpEvidence(change object) map[string]any {
	in := object{"snp": object{
		"measurement": "aa", "reported_tcb_bootloader": 10.0, "reported_tcb_microcode": 25.0, "reported_tcb_snp": 23.0, "reported_tcb_tee": 0.0,
		"policy_debug_allowed": false, "policy_migrate_ma": false, "platform_smt_enabled": true, "platform_tsme_enabled": false,
		"policy_abi_major": 0.0, "policy_abi_minor": 0.0, "policy_single_socket": false, "policy_smt_allowed": true,
	}}
	merge(in, change)
	return in
}

func azureEvidence(change object) map[string]any {
	in := object{"az-snp-vtpm": object{
		"measurement": "aa", "tpm": object{"pcr11": "11"}, "reported_tcb_bootloader": "10", "reported_tcb_microcode": "25",
		"reported_tcb_snp": "23", "reported_tcb_tee": "0", "policy_debug_allowed": "false", "platform_smt_enabled": "true",
		"platform_tsme_enabled": "false", "policy_abi_major": "0", "policy_abi_minor": "0", "policy_single_socket": "false", "policy_smt_allowed": "true",
	}}
	merge(in, change)
	return in
}

func tdxEvidence(tee string, change object) map[string]any {
	in := object{tee: object{
		"quote":      object{"header": object{"tee_type": "81000000"}, "body": object{"mr_td": "aa", "rtmr_1": "01", "rtmr_2": "02", "xfam": "e7"}},
		"tcb_status": "UpToDate", "collateral_expiration_status": "0", "td_attributes": object{"debug": false}, "tpm": object{"pcr11": "11"},
		"uefi_event_logs": []any{
			object{"type_name": "EV_EFI_BOOT_SERVICES_APPLICATION", "details": object{"device_paths": []any{"File(kernel)"}}, "digests": []any{object{"digest": "kk"}}},
			object{"type_name": "EV_EVENT_TAG", "details": object{"string": "LOADED_IMAGE::LoadOptions"}, "digests": []any{object{"digest": "pp"}}},
		},
	}}
	merge(in, change)
	return in
}

func hardwareReferences(without ...string) references {
	one := func(v any) []any { return []any{v} }
	r := references{
		"snp_launch_measurement": one("aa"), "snp_bootloader": one(10), "snp_microcode": one(25), "snp_snp_svn": one(23), "snp_tee_svn": one(0),
		"snp_smt_enabled": true, "snp_tsme_enabled": false, "snp_guest_abi_major": 0, "snp_guest_abi_minor": 0,
		"snp_single_socket": false, "snp_smt_allowed": true,
		"measurement": one("aa"), "snp_pcr11": one("11"), "tcb_bootloader": one("10"), "tcb_microcode": one("25"), "tcb_snp": one("23"),
		"tcb_tee": one("0"), "smt_enabled": one("true"), "tsme_enabled": one("false"), "abi_major": one("0"), "abi_minor": one("0"),
		"single_socket": one("false"), "smt_allowed": one("true"),
		"rtmr_1": one("01"), "rtmr_2": one("02"), "mr_td": one("aa"), "xfam": one("e7"), "tdvfkernel": "kk", "tdvfkernelparams": "pp", "tdx_pcr11": one("11"),
		"trusted_aks": one("ak"), "tpm_pcr11": one("11"),
	}
	for _, id := range without {
		delete(r, id)
	}
	return r
}

func TestSet_Appraise_defaultOfHardware(t *testing.T) {
	in := func(tee string, change object) object { return object{tee: change} }
	tpm := object{"tpm": object{"ak_public": "ak", "pcr11": "11"}}
	s := mustCompile(t, Installed(noon)...)
	for _, tt := range []struct {
		name                             string
		input                            map[string]any
		refs                             ReferenceValues
		hardware, executables, configure int
	}{
		{"snp affirms what matches", snpEvidence(nil), hardwareReferences(), 2, 3, 2},
		{"snp knows nothing without reference values", snpEvidence(nil), references{}, 97, 33, 3},
		{"snp sees another measurement", snpEvidence(in("snp", object{"measurement": "bb"})), hardwareReferences(), 2, 33, 2},
		{"snp sees other firmware", snpEvidence(in("snp", object{"reported_tcb_snp": 22.0})), hardwareReferences(), 97, 3, 2},
		{"snp contradicts debugging", snpEvidence(in("snp", object{"policy_debug_allowed": true})), hardwareReferences(), 2, 3, 96},
		{"snp does not know a migratable guest", snpEvidence(in("snp", object{"policy_migrate_ma": true})), hardwareReferences(), 2, 3, 36},
		{"snp sees another setting", snpEvidence(in("snp", object{"platform_smt_enabled": false})), hardwareReferences(), 2, 3, 3},
		{"azure snp affirms what matches", azureEvidence(nil), hardwareReferences(), 2, 3, 2},
		{"azure snp knows nothing without reference values", azureEvidence(nil), references{}, 97, 33, 36},
		{"azure snp contradicts debugging", azureEvidence(in("az-snp-vtpm", object{"policy_debug_allowed": "true"})), hardwareReferences(), 2, 3, 96},
		{"azure snp sees another PCR", azureEvidence(in("az-snp-vtpm", object{"tpm": object{"pcr11": "12"}})), hardwareReferences(), 2, 33, 2},
		{"tdx affirms what matches", tdxEvidence("tdx", nil), hardwareReferences(), 2, 3, 2},
		{"tdx knows nothing without reference values", tdxEvidence("tdx", nil), references{}, 97, 33, 36},
		{"tdx takes registers without events", tdxEvidence("tdx", in("tdx", object{"uefi_event_logs": []any{}})), hardwareReferences(), 2, 4, 2},
		{"tdx sees an old TCB", tdxEvidence("tdx", in("tdx", object{"tcb_status": "OutOfDate"})), hardwareReferences(), 97, 3, 2},
		{"tdx sees old collateral", tdxEvidence("tdx", in("tdx", object{"collateral_expiration_status": "1"})), hardwareReferences(), 97, 3, 2},
		{"tdx contradicts debugging", tdxEvidence("tdx", in("tdx", object{"td_attributes": object{"debug": true}})), hardwareReferences(), 2, 3, 96},
		{"azure tdx affirms what matches", tdxEvidence("az-tdx-vtpm", nil), hardwareReferences(), 2, 3, 2},
		{"azure tdx contradicts debugging", tdxEvidence("az-tdx-vtpm", in("az-tdx-vtpm", object{"td_attributes": object{"debug": true}})), hardwareReferences(), 2, 3, 96},
		{"tpm takes a known key", tpm, hardwareReferences(), 2, 3, 36},
		{"tpm believes no unknown key", tpm, hardwareReferences("trusted_aks"), 97, 33, 36},
		{"tpm sees another PCR", object{"tpm": object{"ak_public": "ak", "pcr11": "12"}}, hardwareReferences(), 2, 33, 36},
	} {
		got, err := s.Appraise(context.Background(), CPUName, tt.input, tt.refs)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got.Claims["hardware"] != tt.hardware || got.Claims["executables"] != tt.executables || got.Claims["configuration"] != tt.configure {
			t.Errorf("%s: %v", tt.name, got.Claims)
		}
	}
}
