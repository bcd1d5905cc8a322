package policy

func snpClaims() map[string]any { return submods("snp", "affirming") }

func submods(tee, status string) map[string]any {
	return object{"submods": object{"cpu0": object{
		"ear.status":                      status,
		"ear.veraison.annotated-evidence": object{tee: object{}, "report_data": "00"},
	}}}
}
