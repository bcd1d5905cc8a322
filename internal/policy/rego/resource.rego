# The resource policy that is installed first: real hardware may fetch
# resources. It refuses evidence of the sample verifiers, which anybody can make
# up, and every plugin but resource.
package policy

sample_evidence := {"sample", "sampledevice"}

allow if {
	data.plugin == "resource"
	count(input.submods) > 0
	every submod in input.submods {
		is_object(submod["ear.veraison.annotated-evidence"])
		count(sample_evidence & object.keys(submod["ear.veraison.annotated-evidence"])) == 0
	}
}
