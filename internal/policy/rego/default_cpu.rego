# The appraisal of evidence of class cpu. Numbers are those of AR4SI, as Trustee
# uses them: 2 and 3 affirm, 32 to 95 warn, 96 and more contradict. What no rule
# knows keeps the defaults: unrecognised executables (33), unrecognised hardware
# (97), configuration that nobody could look at (36).
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

# The sample TEE proves nothing; with reference values set for it, trials can
# see what an affirming appraisal looks like.
executables := 3 if input.sample.launch_digest in query_reference_value("launch_digest")

hardware := 2 if {
	input.sample.svn in query_reference_value("svn")
	input.sample.platform_version.major == query_reference_value("major_version")

	# In Rego every number is greater than null: a missing reference value must
	# not count as met.
	least := query_reference_value("minimum_minor_version")
	is_number(least)
	is_number(input.sample.platform_version.minor)
	input.sample.platform_version.minor >= least
}

configuration := 2 if input.sample.debug == false

# What the guest's initial data names, for policies that release by workload.
images := [image |
	some container in input.init_data_claims.agent_policy_claims.containers
	image := container.OCI.Annotations["io.kubernetes.cri.image-name"]
]

users := [user |
	some container in input.init_data_claims.agent_policy_claims.containers
	user := container.OCI.Process.User.UID
]

named := {name: list | some name, list in {"container_images": images, "container_uids": users}; count(list) > 0}

extensions := [{
	"name": "ear.trustee.identifiers",
	"key": -18,
	"value": {"validated": named},
}]
