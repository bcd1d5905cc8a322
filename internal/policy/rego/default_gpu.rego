# The appraisal of evidence of class gpu: devices beside the CPU. What no rule
# knows keeps the defaults, as in default_cpu.
package policy

default executables := 33

default hardware := 97

default configuration := 36

trust_claims := {
	"executables": executables,
	"hardware": hardware,
	"configuration": configuration,
	"file-system": 0,
	"instance-identity": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

# The sample device proves nothing, like the sample TEE.
executables := 3 if input.sampledevice.launch_digest in query_reference_value("launch_digest")

hardware := 2 if {
	input.sampledevice.svn in query_reference_value("svn")
	input.sampledevice.platform_version.major == query_reference_value("major_version")

	# In Rego every number is greater than null: a missing reference value must
	# not count as met.
	least := query_reference_value("minimum_minor_version")
	is_number(least)
	is_number(input.sampledevice.platform_version.minor)
	input.sampledevice.platform_version.minor >= least
}

configuration := 2 if input.sampledevice.debug == false
