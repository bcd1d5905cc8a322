# Only guests of which every part was appraised as affirming fetch resources.
package policy

allow if {
	data.plugin == "resource"
	count(input.submods) > 0
	every submod in input.submods {
		submod["ear.status"] == "affirming"
	}
}
