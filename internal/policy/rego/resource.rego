# The resource policy that is installed first: guests whose appraisal contradicts
# nothing may fetch resources. By default_cpu that takes hardware, or the key of a
# TPM, that reference values name: genuine hardware anybody can rent, and a quote
# anybody can sign. Evidence of the sample verifiers, which anybody can make up, is
# refused whatever is said of it, and so is every plugin but resource.
package policy

sample_evidence := {"sample", "sampledevice"}

allow if {
	data.plugin == "resource"
	count(input.submods) > 0
	every submod in input.submods {
		submod["ear.status"] in {"affirming", "warning"}
		is_object(submod["ear.veraison.annotated-evidence"])
		count(sample_evidence & object.keys(submod["ear.veraison.annotated-evidence"])) == 0
	}
}
